package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Sheets are a bundle cut into texts for QR codes (SPEC.md section 13): OPENLINE:<id>:<n>:<of>:<base45>.
const (
	sheetPrefix   = "OPENLINE"
	maxSheets     = 999
	maxSheetBytes = 2048
	maxSheetText  = len(sheetPrefix) + len(":ABCD:999:999:") + (maxSheetBytes+1)/2*3

	terminalSheet = 396  // bytes of a sheet whose code, with its white frame, is 77 columns wide
	paperSheet    = 1000 // bytes of a sheet that a phone can still read from paper
)

// sheets cuts a bundle into texts of size bytes each, 1 to maxSheetBytes. It fails when they are more than maxSheets.
func sheets(bundle []byte, size int) ([]string, error) {
	of := (len(bundle) + size - 1) / size
	if of < 1 || of > maxSheets {
		return nil, fmt.Errorf("%d bytes make %d codes of %d bytes; %d are the most", len(bundle), of, size, maxSheets)
	}
	var texts []string
	for part := range slices.Chunk(bundle, size) {
		texts = append(texts, fmt.Sprintf("%s:%s:%d:%d:%s", sheetPrefix, sheetID(bundle), len(texts)+1, of, base45(part)))
	}
	return texts, nil
}

// sheetID tells the sheets of one bundle from those of another.
func sheetID(bundle []byte) string {
	sum := sha256.Sum256(bundle)
	return fmt.Sprintf("%04X", sum[:2])
}

// sheet is one text, parsed.
type sheet struct {
	id    string
	n, of int
	part  []byte
}

func parseSheet(text string) (sheet, error) {
	fields := strings.SplitN(text, ":", 5)
	if len(text) > maxSheetText || len(fields) != 5 || fields[0] != sheetPrefix {
		return sheet{}, errors.New("this code is no piece of a bundle")
	}
	n, of := sheetNumber(fields[2]), sheetNumber(fields[3])
	if !isSheetID(fields[1]) || n < 1 || of < n {
		return sheet{}, errors.New("this code is like a piece of a bundle, and its numbers make no sense")
	}
	part, err := unbase45(fields[4])
	if err != nil || len(part) == 0 || len(part) > maxSheetBytes {
		return sheet{}, fmt.Errorf("the code of piece %d of %d of %s has damaged data", n, of, fields[1])
	}
	return sheet{fields[1], n, of, part}, nil
}

func isSheetID(s string) bool {
	return len(s) == 4 && strings.Trim(s, "0123456789ABCDEF") == ""
}

// sheetNumber returns 0 for what is no number of a sheet.
func sheetNumber(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxSheets || strconv.Itoa(n) != s {
		return 0
	}
	return n
}

// sheetPile sorts sheets of several bundles that come in any order, some of them twice.
type sheetPile struct{ sets []*sheetSet }

func (p *sheetPile) add(text string) error {
	s, err := parseSheet(text)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(p.sets, func(set *sheetSet) bool { return set.id == s.id && len(set.parts) == s.of })
	if i < 0 {
		i = len(p.sets)
		p.sets = append(p.sets, &sheetSet{s.id, make([][]byte, s.of)})
	}
	part := &p.sets[i].parts[s.n-1]
	if *part != nil && !bytes.Equal(*part, s.part) {
		return fmt.Errorf("there are two different codes for piece %d of %d of %s", s.n, s.of, s.id)
	}
	*part = s.part
	return nil
}

// sheetSet are the sheets of one bundle, nil for those that are missing.
type sheetSet struct {
	id    string
	parts [][]byte
}

func (s *sheetSet) name() string { return fmt.Sprintf("codes %s", s.id) }

// missing returns the numbers of the sheets that did not come yet.
func (s *sheetSet) missing() (numbers []int) {
	for i, part := range s.parts {
		if part == nil {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}

// join returns the bundle when all sheets are there.
func (s *sheetSet) join() ([]byte, error) {
	if missing := s.missing(); len(missing) > 0 {
		return nil, fmt.Errorf("%s: missing of %d pieces: %s", s.name(), len(s.parts), ranges(missing))
	}
	raw := slices.Concat(s.parts...)
	if sheetID(raw) != s.id {
		return nil, fmt.Errorf("%s: the pieces are not of one bundle", s.name())
	}
	return raw, nil
}

// ranges writes ascending numbers as people do: 1, 3 to 5.
func ranges(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		end := i
		for end+1 < len(numbers) && numbers[end+1] == numbers[end]+1 {
			end++
		}
		text := strconv.Itoa(numbers[i])
		if end > i {
			text = fmt.Sprintf("%d to %d", numbers[i], numbers[end])
		}
		parts = append(parts, text)
		i = end + 1
	}
	return strings.Join(parts, ", ")
}

// alphabet45 is that of RFC 9285, the alphanumeric mode of QR codes.
const alphabet45 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

func base45(b []byte) string {
	var text strings.Builder
	for pair := range slices.Chunk(b, 2) {
		v, digits := int(pair[0]), 2
		if len(pair) == 2 {
			v, digits = v<<8|int(pair[1]), 3
		}
		for range digits {
			text.WriteByte(alphabet45[v%45])
			v /= 45
		}
	}
	return text.String()
}

func unbase45(text string) ([]byte, error) {
	var b []byte
	for digits := range slices.Chunk([]byte(text), 3) {
		v := 0
		for _, c := range slices.Backward(digits) {
			d := strings.IndexByte(alphabet45, c)
			if d < 0 {
				return nil, fmt.Errorf("%q is no digit of base45", c)
			}
			v = v*45 + d
		}
		switch {
		case len(digits) == 3 && v <= 0xffff:
			b = append(b, byte(v>>8), byte(v))
		case len(digits) == 2 && v <= 0xff:
			b = append(b, byte(v))
		default:
			return nil, errors.New("a group of base45 is too large or cut off")
		}
	}
	return b, nil
}
