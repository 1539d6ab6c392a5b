package protocol

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// The layout of a bundle file (SPEC.md section 13). All integers have their most significant byte first.
const (
	bundleMagic   = "\x8folb\r\n\x1a\n" // no text, and changed by whatever takes it for one
	bundleVersion = 1
	frameMarker   = "\xf1OLF"
	indexMarker   = "\xf1OLI"
	trailerMagic  = "\xf1OLBend\n"
	markerStart   = "\xf1OL" // what the three have in common

	bundleHeaderSize = 8 + 1 + maxNetworkLength + 8 + 8 + 8
	frameHeaderSize  = 4 + 4 + 8 + 4 + 8 + 8 + 4 + 4 + frameSumSize
	frameSumSize     = 16
	indexHeaderSize  = 4 + 4 + 8
	indexEntrySize   = 8 + 4 + 8 + 8
	indexSumSize     = 16
	trailerSize      = 8 + 8

	maxNetworkLength = 32
	frameFill        = 64 << 10            // raw bytes that a writer puts into a frame: one damage costs no more
	maxFrameRaw      = 128 << 10           // raw bytes of a frame that a reader takes
	maxFramePacked   = maxFrameRaw + 1<<10 // compressed
	minEnvelope      = 2 + 32 + 2 + 64     // an envelope has at least a key and a signature
	eventPrefix      = 2                   // bytes of the length before an envelope: the most that MaxEventSize needs
	packOverhead     = 32                  // zstd's header and block header, and more than it needs per 128 KiB
	indexFixed       = indexHeaderSize + indexSumSize + trailerSize
	frameOverhead    = frameHeaderSize + packOverhead + indexEntrySize
)

// BundleHeader says what was asked for when a bundle was made; the events may be fewer than the range suggests.
type BundleHeader struct {
	Network  string
	From, To int64 // Unix seconds, both inclusive; 0 and MaxBundleTime when open
}

// MaxBundleTime is the To of a bundle with no upper end.
const MaxBundleTime int64 = maxTime

func (h BundleHeader) check() error {
	for _, c := range []byte(h.Network) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("bundle: the network's name has a character other than a to z, 0 to 9 and -")
		}
	}
	if len(h.Network) < 1 || len(h.Network) > maxNetworkLength {
		return fmt.Errorf("bundle: the network's name has %d characters, not 1 to %d", len(h.Network), maxNetworkLength)
	}
	if h.From < 0 || h.From > h.To || h.To > maxTime {
		return fmt.Errorf("bundle: %d to %d is no range of Unix seconds", h.From, h.To)
	}
	return nil
}

func (h BundleHeader) append(b []byte) []byte {
	start := len(b)
	b = append(b, bundleMagic...)
	b = append(b, bundleVersion)
	b = append(b, h.Network...)
	b = append(b, make([]byte, maxNetworkLength-len(h.Network))...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.From))
	b = binary.BigEndian.AppendUint64(b, uint64(h.To))
	sum := sha256.Sum256(b[start:])
	return append(b, sum[:8]...)
}

// parseBundleHeader reads bundleHeaderSize bytes whose checksum holds.
func parseBundleHeader(b []byte) (BundleHeader, error) {
	if v := b[len(bundleMagic)]; v != bundleVersion {
		return BundleHeader{}, fmt.Errorf("bundle: the file has version %d, this program reads version %d", v, bundleVersion)
	}
	b = b[len(bundleMagic)+1:]
	h := BundleHeader{
		Network: strings.TrimRight(string(b[:maxNetworkLength]), "\x00"),
		From:    int64(binary.BigEndian.Uint64(b[maxNetworkLength:])),
		To:      int64(binary.BigEndian.Uint64(b[maxNetworkLength+8:])),
	}
	return h, h.check()
}

// frameHead is the header of a frame without marker and checksum.
type frameHead struct {
	number      uint32 // from 1
	before      uint64 // events in the frames before
	events      uint32
	first, last uint64 // created_at
	raw, packed uint32 // bytes
}

func (h frameHead) append(b []byte) []byte {
	b = append(b, frameMarker...)
	b = binary.BigEndian.AppendUint32(b, h.number)
	b = binary.BigEndian.AppendUint64(b, h.before)
	b = binary.BigEndian.AppendUint32(b, h.events)
	b = binary.BigEndian.AppendUint64(b, h.first)
	b = binary.BigEndian.AppendUint64(b, h.last)
	b = binary.BigEndian.AppendUint32(b, h.raw)
	return binary.BigEndian.AppendUint32(b, h.packed)
}

// indexEntry is what the index says of one frame.
type indexEntry struct {
	offset      uint64
	events      uint32
	first, last uint64
}

func (x indexEntry) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, x.offset)
	b = binary.BigEndian.AppendUint32(b, x.events)
	b = binary.BigEndian.AppendUint64(b, x.first)
	return binary.BigEndian.AppendUint64(b, x.last)
}

// BundleWriter writes a bundle file front to back. It keeps one frame and the index in memory, 28 bytes per frame.
type BundleWriter struct {
	w       io.Writer
	packer  *zstd.Encoder
	header  BundleHeader
	fill    int   // raw bytes of a full frame
	err     error // the first failure, which every later call returns
	written int64
	frame   frameHead // in progress
	raw     []byte    // of the frame in progress
	last    Event
	index   []indexEntry
	out     []byte // scratch
}

// NewBundleWriter writes the header. The caller closes w, after Close.
func NewBundleWriter(w io.Writer, h BundleHeader) (*BundleWriter, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	packer, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(true),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(maxFrameRaw))
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	b := &BundleWriter{w: w, packer: packer, header: h, fill: frameFill, frame: frameHead{number: 1}}
	return b, b.write(h.append(nil))
}

// Add appends e, which must come after all that was added before, by created_at and then by id. An event that does
// not travel is refused: no reader could take it.
func (b *BundleWriter) Add(e Event) error {
	if b.err != nil {
		return b.err
	}
	if !Travels(e.kind) {
		return Reject(BadKind, "events of kind %d do not travel", e.kind)
	}
	if e.createdAt < b.header.From || e.createdAt > b.header.To {
		return fmt.Errorf("bundle: event %s is not in the range that the header names", e.id)
	}
	if b.Count() > 0 && b.last.Compare(e) >= 0 {
		return fmt.Errorf("bundle: event %s stands in the wrong place or twice", e.id)
	}
	envelope := e.AppendEnvelope(nil)
	if len(envelope) > MaxEventSize {
		return Reject(TooLarge, "the envelope has %d bytes; %d are the most", len(envelope), MaxEventSize)
	}
	if len(b.raw)+eventPrefix+len(envelope) > b.fill {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if b.frame.events == 0 {
		b.frame.first = uint64(e.createdAt)
	}
	b.frame.events++
	b.frame.last = uint64(e.createdAt)
	b.last = e
	b.raw = binary.AppendUvarint(b.raw, uint64(len(envelope)))
	b.raw = append(b.raw, envelope...)
	return nil
}

// Count returns the number of events added.
func (b *BundleWriter) Count() int { return int(b.frame.before) + int(b.frame.events) }

// Size returns the length that the file has at most if Close comes next.
func (b *BundleWriter) Size() int64 {
	size := b.written + int64(len(b.index)*indexEntrySize) + indexFixed
	if len(b.raw) > 0 {
		size += int64(len(b.raw)) + frameOverhead
	}
	return size
}

// SizeWith returns the length that the file has at most if e is added and Close comes next.
func (b *BundleWriter) SizeWith(e Event) int64 {
	return b.Size() + int64(eventPrefix+len(e.AppendEnvelope(nil))) + frameOverhead
}

// Close writes the frame in progress, the index and the trailer. It does not close w.
func (b *BundleWriter) Close() error {
	if err := b.flush(); err != nil {
		return err
	}
	at := b.written
	out := append(b.out[:0], indexMarker...)
	out = binary.BigEndian.AppendUint32(out, uint32(len(b.index)))
	out = binary.BigEndian.AppendUint64(out, b.frame.before)
	for _, x := range b.index {
		out = x.append(out)
	}
	sum := sha256.Sum256(out)
	out = append(out, sum[:indexSumSize]...)
	out = append(out, trailerMagic...)
	if err := b.write(binary.BigEndian.AppendUint64(out, uint64(at))); err != nil {
		return err
	}
	b.err = errors.New("bundle: the writer is closed")
	return nil
}

// flush writes the frame in progress, if there is one.
func (b *BundleWriter) flush() error {
	if b.err != nil || len(b.raw) == 0 {
		return b.err
	}
	f := b.frame
	packed := b.packer.EncodeAll(b.raw, make([]byte, 0, len(b.raw)+packOverhead))
	f.raw, f.packed = uint32(len(b.raw)), uint32(len(packed))
	b.index = append(b.index, indexEntry{uint64(b.written), f.events, f.first, f.last})
	b.out = sealFrame(b.out[:0], f, packed)
	if err := b.write(b.out); err != nil {
		return err
	}
	b.raw = b.raw[:0]
	b.frame = frameHead{number: f.number + 1, before: f.before + uint64(f.events)}
	return nil
}

// sealFrame appends a whole frame: header, checksum and payload.
func sealFrame(b []byte, h frameHead, packed []byte) []byte {
	start := len(b)
	b = h.append(b)
	sum := frameSum(b[start:], packed)
	b = append(b, sum[:]...)
	return append(b, packed...)
}

func frameSum(head, packed []byte) (sum [frameSumSize]byte) {
	h := sha256.New()
	h.Write(head)
	h.Write(packed)
	copy(sum[:], h.Sum(nil))
	return sum
}

func (b *BundleWriter) write(p []byte) error {
	n, err := b.w.Write(p)
	b.written += int64(n)
	if err != nil {
		b.err = fmt.Errorf("write bundle at byte %d: %w", b.written, err)
	}
	return b.err
}
