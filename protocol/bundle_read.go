package protocol

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// BundleFrame is a whole frame: its checksum holds and it could be unpacked. Its envelopes are what somebody wrote;
// only ParseEnvelope (in scope Late) makes events of them.
type BundleFrame struct {
	Number      int   // from 1
	Events      int   // the number of envelopes
	First, Last int64 // created_at of the first and the last event, as the frame's header has it
	Envelopes   [][]byte
}

// BundleReader reads a bundle front to back and goes on behind what is damaged. It needs neither index nor trailer,
// and its memory is bounded whatever it reads.
type BundleReader struct {
	in       *bufio.Reader
	unpacker *zstd.Decoder
	header   BundleHeader
	err      error // why it ended
	offset   int64 // of the next byte of in
	futile   int64 // bytes hashed for what turned out to be no frame
	damages
}

// NewBundleReader reads the header. It fails when r is no bundle or one of a later version; when the header alone is
// damaged the reader goes on, Header is zero, and Damage says so.
func NewBundleReader(r io.Reader) (*BundleReader, error) {
	unpacker, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxFrameRaw),
		zstd.WithDecoderMaxWindow(maxFrameRaw), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	b := &BundleReader{in: bufio.NewReaderSize(r, frameHeaderSize+maxFramePacked), unpacker: unpacker}
	b.gap = noGap
	head, err := b.in.Peek(bundleHeaderSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the bundle's header: %w", err)
	}
	if !likeMagic(head) {
		return nil, errors.New("this is no openline bundle: it does not begin like one")
	}
	if err := b.readHeader(head); err != nil {
		return nil, err
	}
	return b, nil
}

// likeMagic allows one damaged byte: frames are worth looking for even then, and the magic is long enough.
func likeMagic(head []byte) bool {
	if len(head) < len(bundleMagic) {
		return false
	}
	wrong := 0
	for i := range len(bundleMagic) {
		if head[i] != bundleMagic[i] {
			wrong++
		}
	}
	return wrong <= 1
}

// readHeader looks at the first bytes, which are fewer than a header when the file is cut off in it.
func (b *BundleReader) readHeader(head []byte) error {
	b.to = maxTime
	if len(head) < bundleHeaderSize {
		return nil // the end will be found to be missing
	}
	body, sum := head[:bundleHeaderSize-8], sha256.Sum256(head[:bundleHeaderSize-8])
	if !bytes.Equal(sum[:8], head[len(body):]) || string(body[:len(bundleMagic)]) != bundleMagic {
		b.note(BundleDamage{Length: bundleHeaderSize, Text: "the header is damaged: the network and the range are unknown"})
		next, _ := b.in.Peek(bundleHeaderSize + len(markerStart))
		if bytes.HasSuffix(next, []byte(markerStart)) {
			return b.discard(bundleHeaderSize)
		}
		return b.discard(len(bundleMagic)) // bytes were lost or added
	}
	h, err := parseBundleHeader(body)
	if err != nil {
		return err
	}
	b.header, b.last, b.to = h, h.From, h.To
	return b.discard(bundleHeaderSize)
}

// Header returns the header, zero when it was damaged.
func (b *BundleReader) Header() BundleHeader { return b.header }

// Next returns the next whole frame, io.EOF at the end. Frames come in the order of the file: a whole one in the
// wrong place is returned too, and noted as damage. Any other error is one of reading.
func (b *BundleReader) Next() (BundleFrame, error) {
	for b.err == nil {
		head, err := b.in.Peek(frameHeaderSize)
		if err != nil && !errors.Is(err, io.EOF) {
			b.err = fmt.Errorf("read bundle at byte %d: %w", b.offset+int64(len(head)), err)
			break
		}
		switch {
		case len(head) == 0:
			b.finish(b.offset)
			b.err = io.EOF
		case bytes.HasPrefix(head, []byte(frameMarker)):
			var f BundleFrame
			if f, b.err = b.readFrame(head); b.err == nil && f.Events > 0 {
				return f, nil
			}
		case bytes.HasPrefix(head, []byte(indexMarker)) && likeIndex(head):
			b.err = b.readIndex(head)
		case bytes.HasPrefix(head, []byte(trailerMagic)) && len(head) >= trailerSize:
			b.trailer(b.offset, int64(binary.BigEndian.Uint64(head[len(trailerMagic):])))
			b.err = b.discard(trailerSize)
		default:
			b.err = b.search()
		}
	}
	return BundleFrame{}, b.err
}

// Damage returns what was found damaged or missing so far, in the order in which it was found. It is complete when
// Next has returned io.EOF.
func (b *BundleReader) Damage() []BundleDamage { return b.list }

// search passes over what is no frame, up to where one may begin.
func (b *BundleReader) search() error {
	ahead, _ := b.in.Peek(b.in.Buffered())
	n := bytes.Index(ahead[1:], []byte(markerStart)) + 1
	if n == 0 {
		n = max(1, len(ahead)-len(markerStart)+1) // the beginning of a marker may be at the end
	}
	return b.skip(n)
}

// skip passes over n bytes that were damaged.
func (b *BundleReader) skip(n int) error {
	b.open(b.offset)
	return b.discard(n)
}

func (b *BundleReader) discard(n int) error {
	n, err := b.in.Discard(n)
	b.offset += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read bundle at byte %d: %w", b.offset, err)
	}
	return nil
}

// readFrame returns the frame that begins here. When there is none it has no events, and the reader has moved on.
func (b *BundleReader) readFrame(head []byte) (BundleFrame, error) {
	h, ok := parseFrameHead(head)
	if !ok {
		return BundleFrame{}, b.skip(1)
	}
	size := frameHeaderSize + int(h.packed)
	whole, err := b.in.Peek(size)
	if err != nil && !errors.Is(err, io.EOF) {
		return BundleFrame{}, fmt.Errorf("read bundle at byte %d: %w", b.offset+int64(len(whole)), err)
	}
	if len(whole) < size {
		return BundleFrame{}, b.skip(1)
	}
	packed := whole[frameHeaderSize:]
	if sum := frameSum(whole[:frameHeaderSize-frameSumSize], packed); !bytes.Equal(sum[:], whole[frameHeaderSize-frameSumSize:frameHeaderSize]) {
		return BundleFrame{}, b.miss(size)
	}
	f := BundleFrame{Number: int(h.number), Events: int(h.events), First: int64(h.first), Last: int64(h.last)}
	f.Envelopes, err = b.unpack(h, packed)
	b.follow(b.offset, h)
	if err != nil {
		b.note(BundleDamage{Offset: b.offset, Length: int64(size), Frame: f.Number, Frames: 1, Events: int64(h.events),
			First: f.First, Last: f.Last, Text: fmt.Sprintf("frame %d is refused: %v", f.Number, err)})
		f = BundleFrame{}
	}
	return f, b.discard(size)
}

// miss goes on after a frame whose checksum does not hold. Its length may be what is damaged, so the next frame is
// looked for inside it. A file made to waste time could have one such header in the other, so there is a limit to
// how much is hashed in vain; from there on the length is believed.
func (b *BundleReader) miss(size int) error {
	b.futile += int64(size)
	if b.futile > 32*maxFrameRaw+4*b.offset {
		return b.skip(size)
	}
	return b.skip(1)
}

// parseFrameHead reports whether b begins with a header that a good frame could have.
func parseFrameHead(b []byte) (h frameHead, ok bool) {
	if len(b) < frameHeaderSize {
		return frameHead{}, false
	}
	h = frameHead{
		number: binary.BigEndian.Uint32(b[4:]),
		before: binary.BigEndian.Uint64(b[8:]),
		events: binary.BigEndian.Uint32(b[16:]),
		first:  binary.BigEndian.Uint64(b[20:]),
		last:   binary.BigEndian.Uint64(b[28:]),
		raw:    binary.BigEndian.Uint32(b[36:]),
		packed: binary.BigEndian.Uint32(b[40:]),
	}
	ok = h.number > 0 && h.before <= maxTime && h.events > 0 && h.first <= h.last && h.last <= maxTime &&
		h.raw <= maxFrameRaw && h.packed <= maxFramePacked && h.events <= h.raw/minEnvelope
	return h, ok
}

// unpack returns the envelopes of a frame. Nothing is allocated that the frame's header does not announce.
func (b *BundleReader) unpack(h frameHead, packed []byte) ([][]byte, error) {
	if err := checkPacked(h, packed); err != nil {
		return nil, err
	}
	raw, err := b.unpacker.DecodeAll(packed, make([]byte, 0, h.raw))
	if err != nil {
		return nil, fmt.Errorf("it cannot be decompressed: %w", err)
	}
	if len(raw) != int(h.raw) {
		return nil, fmt.Errorf("it has %d bytes decompressed and claims %d", len(raw), h.raw)
	}
	envelopes := make([][]byte, 0, h.events)
	for len(raw) > 0 {
		size, n := binary.Uvarint(raw)
		minimal := n == 1 || n == 2 && size > 127
		if !minimal || size < minEnvelope || size > MaxEventSize || size > uint64(len(raw)-n) {
			return nil, fmt.Errorf("event %d has an impossible length", len(envelopes)+1)
		}
		end := n + int(size)
		envelopes = append(envelopes, raw[n:end:end])
		raw = raw[end:]
		if len(envelopes) > int(h.events) {
			break
		}
	}
	if len(envelopes) != int(h.events) {
		return nil, fmt.Errorf("it does not hold the %d events that it claims", h.events)
	}
	return envelopes, nil
}

// checkPacked demands one zstd frame and nothing else, whose size is the announced one and known before it is
// decompressed (RFC 8878 sections 3.1.1.1 and 3.1.1.2).
func checkPacked(h frameHead, packed []byte) error {
	var z zstd.Header
	if err := z.Decode(packed); err != nil || z.Skippable || z.DictionaryID != 0 {
		return errors.New("it is not compressed with zstd, or with a dictionary")
	}
	if !z.HasFCS || z.FrameContentSize != uint64(h.raw) {
		return errors.New("zstd's content size is missing or is not that of the frame")
	}
	if z.WindowSize > maxFrameRaw {
		return fmt.Errorf("zstd's window has %d bytes; %d are the most", z.WindowSize, maxFrameRaw)
	}
	at := z.HeaderSize
	for last := false; !last; {
		if at+3 > len(packed) {
			return errors.New("zstd's frame is cut off")
		}
		block := int(packed[at]) | int(packed[at+1])<<8 | int(packed[at+2])<<16
		last = block&1 != 0
		size := block >> 3
		if block>>1&3 == 1 { // one byte, repeated
			size = 1
		}
		at += 3 + size
	}
	if z.HasCheckSum {
		at += 4
	}
	if at != len(packed) {
		return errors.New("zstd's frame does not end where the payload does")
	}
	return nil
}

// likeIndex reports whether b, which has the marker, goes on as an index does: the first frame follows the header.
func likeIndex(b []byte) bool {
	if len(b) < indexHeaderSize {
		return false
	}
	count, total := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
	entry := b[indexHeaderSize:]
	return total <= maxTime && total >= uint64(count) &&
		(count > 0 || total == 0) && (count == 0 || len(entry) < 8 || binary.BigEndian.Uint64(entry) == bundleHeaderSize)
}

// follows reports whether a frame can begin at offset when the one before it began at before. It keeps an index whose
// count is damaged from swallowing what comes after it.
func follows(before, offset uint64) bool {
	return offset > before && offset-before <= frameHeaderSize+maxFramePacked
}

// readIndex reads the index that begins here, entry by entry, for what it knows of the frames that were lost.
func (b *BundleReader) readIndex(head []byte) error {
	start, sum := b.offset, sha256.New()
	count, total := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint64(head[8:])
	sum.Write(head[:indexHeaderSize])
	if err := b.discard(indexHeaderSize); err != nil {
		return err
	}
	lost := b.lostTo(start, count, total)
	for number, before := uint32(1), uint64(0); number <= count; number++ {
		entry, _ := b.in.Peek(indexEntrySize)
		if len(entry) < indexEntrySize || !follows(before, binary.BigEndian.Uint64(entry)) {
			b.spoiltIndex(start, count, total)
			return nil
		}
		before = binary.BigEndian.Uint64(entry)
		lost.learn(number, int64(binary.BigEndian.Uint64(entry[12:])), int64(binary.BigEndian.Uint64(entry[20:])))
		sum.Write(entry)
		if err := b.discard(indexEntrySize); err != nil {
			return err
		}
	}
	if end, _ := b.in.Peek(indexSumSize); !bytes.Equal(end, sum.Sum(nil)[:indexSumSize]) {
		b.spoiltIndex(start, count, total)
		return nil
	}
	b.indexed(start, count, total, lost)
	return b.discard(indexSumSize)
}
