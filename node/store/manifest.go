package store

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
)

// checkWhole refuses a directory that the engine would take for an emptier one than it is, and tidy up accordingly: one
// with data but no manifest counts as new, and a manifest with a rotten entry ends there without a word.
func checkWhole(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	data, manifest := "", ""
	for _, e := range entries {
		name := e.Name()
		if current, ok := strings.CutPrefix(name, "marker.manifest."); ok && current > manifest {
			manifest = current // six digits that count up, a dot, the file's name
		}
		if filepath.Ext(name) == ".sst" {
			data = name
		}
	}
	if data != "" && manifest == "" {
		return damaged("there is data (%s) but no manifest", data)
	}
	_, name, ok := strings.Cut(manifest, ".")
	if !ok {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if os.IsNotExist(err) {
		return damaged("%s is missing", name)
	}
	if err != nil {
		return err
	}
	if at := rotten(b); at >= 0 {
		return damaged("%s does not fit its checksum at byte %d", name, at)
	}
	return nil
}

// The form of the manifest: the LevelDB log format (its doc/log_format.md). Blocks hold chunks of a masked CRC-32C, a
// length and a type; where less than a header is left, a block is padded with zeros.
const (
	manifestBlock = 32 << 10
	chunkHeader   = 4 + 2 + 1
)

// rotten returns where the first chunk begins that is all there and does not fit its checksum, -1 when there is none.
// A chunk that the file ends within was being written when a crash came: the engine knows what to do then.
func rotten(b []byte) int {
	for at := 0; at+chunkHeader <= len(b); {
		left := manifestBlock - at%manifestBlock
		if left < chunkHeader {
			at += left
			continue
		}
		sum, length := binary.LittleEndian.Uint32(b[at:]), int(binary.LittleEndian.Uint16(b[at+4:]))
		end := at + chunkHeader + length
		switch {
		case sum == 0 && length == 0 && b[at+6] == 0:
			at += left // nothing more in this block
			continue
		case chunkHeader+length > left:
			return at
		case end > len(b):
			return -1
		case chunkSum(b[at+6:end]) != sum:
			return at
		}
		at = end
	}
	return -1
}

func chunkSum(b []byte) uint32 {
	c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return (c>>15 | c<<17) + 0xa282ead8
}
