package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// The examples of RFC 9285 section 4.3 and 4.4.
func TestBase45OfTheRFC(t *testing.T) {
	for plain, text := range map[string]string{"AB": "BB8", "Hello!!": "%69 VD92EX0", "base-45": "UJCLQE7W581", "ietf!": "QED8WEX0", "": ""} {
		if got := base45([]byte(plain)); got != text {
			t.Errorf("base45(%q) = %q, want %q", plain, got, text)
		}
		if got, err := unbase45(text); err != nil || string(got) != plain {
			t.Errorf("unbase45(%q) = %q, %v", text, got, err)
		}
	}
	for _, bad := range []string{"GGW", ":::", "A", "BB8A", "bb8", "ZZ", "É8", "BB\n"} {
		if got, err := unbase45(bad); err == nil {
			t.Errorf("unbase45(%q) = %q", bad, got)
		}
	}
}

func TestSheetsJoinInAnyOrder(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	for range 300 {
		raw := make([]byte, 1+r.IntN(5000))
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		texts, err := sheets(raw, 100+r.IntN(maxSheetBytes-100))
		if err != nil {
			t.Fatal(err)
		}
		scanned := append(slices.Clone(texts), texts[r.IntN(len(texts))])
		r.Shuffle(len(scanned), func(i, j int) { scanned[i], scanned[j] = scanned[j], scanned[i] })
		var pile sheetPile
		for _, text := range scanned {
			if strings.Trim(text, alphabet45) != "" || strings.TrimSpace(text) != text || len(text) > maxSheetText {
				t.Fatalf("%q does not survive every reader of QR codes", text)
			}
			if err := pile.add(text); err != nil {
				t.Fatal(err)
			}
		}
		got, err := pile.sets[0].join()
		if err != nil || len(pile.sets) != 1 || !bytes.Equal(got, raw) {
			t.Fatalf("%d bytes in %d sheets: %v", len(raw), len(texts), err)
		}
	}
	if _, err := sheets(make([]byte, maxSheets*10+1), 10); err == nil {
		t.Error("1,000 sheets were made")
	}
	if _, err := sheets(nil, 10); err == nil {
		t.Error("nothing was cut into sheets")
	}
}

func TestMissingSheetsAreNamed(t *testing.T) {
	texts, err := sheets(make([]byte, 1000), 100)
	if err != nil {
		t.Fatal(err)
	}
	var pile sheetPile
	for _, i := range []int{9, 0, 5, 9} {
		if err := pile.add(texts[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pile.sets[0].join(); err == nil || !strings.HasSuffix(err.Error(), "missing of 10 pieces: 2 to 5, 7 to 9") {
		t.Errorf("join() = %v", err)
	}
	other := strings.Replace(texts[5], ":000", ":111", 1)
	if err := pile.add(other); err == nil || !strings.Contains(err.Error(), "two different codes for piece 6 of 10") {
		t.Errorf("a second piece 6: %v", err)
	}
	wrong, err := sheets([]byte("ab"), 1)
	if err != nil {
		t.Fatal(err)
	}
	pile = sheetPile{}
	for _, text := range []string{wrong[0], strings.TrimSuffix(wrong[1], "82") + "92"} {
		if err := pile.add(text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pile.sets[0].join(); err == nil || !strings.Contains(err.Error(), "not of one bundle") {
		t.Errorf("pieces of two bundles: %v", err)
	}
}

func TestGarbageIsNoSheet(t *testing.T) {
	for _, text := range []string{
		"", "OPENLINE", "https://example.org", "OPENLINE:ABCD:1:1", "OPENLINE:ABCD:1:1:", "OPENLINE:ABCD:0:1:BB8", "OPENLINE:ABCD:2:1:BB8",
		"OPENLINE:ABCD:1:1000:BB8", "OPENLINE:ABCD:01:1:BB8", "OPENLINE:ABCD:+1:1:BB8", "OPENLINE:abcd:1:1:BB8", "OPENLINE:ABC:1:1:BB8",
		"openline:ABCD:1:1:BB8", "OPENLINE:ABCD:1:1:bb8", "OPENLINE:ABCD:1:1:" + strings.Repeat("BB8", 1025), "OPENLINE:ABCD:1:1:" + strings.Repeat("B", 1<<20),
	} {
		if s, err := parseSheet(text); err == nil {
			t.Errorf("parseSheet(%.40q) = %d of %d", text, s.n, s.of)
		}
	}
}

func FuzzParseSheet(f *testing.F) {
	f.Add("OPENLINE:ABCD:1:2:BB8")
	f.Add("OPENLINE:0000:999:999:%69 VD92EX0")
	f.Add("OPENLINE:ABCD:1:1::::")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSheet(text)
		if err != nil {
			return
		}
		if again := fmt.Sprintf("%s:%s:%d:%d:%s", sheetPrefix, s.id, s.n, s.of, base45(s.part)); again != text {
			t.Fatalf("%q has a second form %q", text, again)
		}
		var pile sheetPile
		if err := pile.add(text); err != nil || len(pile.sets[0].missing()) != s.of-1 {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// As a user does it: bundles of a few notes, written as pictures, verified from the pictures.
func TestBundlesGoThroughPictures(t *testing.T) {
	for _, notes := range []int{1, 2, 7, 20} {
		dir := t.TempDir()
		raw := testBundle(t, notes, "main", 0)
		texts, err := sheets(raw, paperSheet)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for i, text := range texts {
			var b bytes.Buffer
			if err := writeQR(&b, text); err != nil {
				t.Fatal(err)
			}
			names = append([]string{filepath.Join(dir, fmt.Sprintf("sheet-%d.png", i+1))}, names...)
			writeTestFile(t, names[0], b.Bytes())
		}
		t.Logf("%d notes: %d bytes, %d codes", notes, len(raw), len(texts))
		code, out, errOut := verbs("bundle", append([]string{"verify"}, names...)...)
		if want := fmt.Sprintf("codes %s: network main, %d good events", sheetID(raw), notes); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%d notes: exit %d, %q, %q; want %q", notes, code, out, errOut, want)
		}
		if len(names) < 3 {
			continue
		}
		code, _, errOut = verbs("bundle", append([]string{"verify"}, slices.Delete(names, 1, 2)...)...)
		if want := fmt.Sprintf("missing of %d pieces: %d", len(texts), len(texts)-1); code != 1 || !strings.Contains(errOut, want) {
			t.Errorf("without one picture: exit %d, %q; want %q", code, errOut, want)
		}
	}
}

// A photo is grey, tilted, uneven and compressed; this one is rotated by ten degrees.
func TestQRIsReadFromAPhoto(t *testing.T) {
	texts, err := sheets(testBundle(t, 1, "main", 0), 300)
	if err != nil {
		t.Fatal(err)
	}
	dark, width, err := encodeQR(texts[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	const size, sin, cos = 900, 0.17364817766, 0.98480775301
	photo := image.NewGray(image.Rect(0, 0, size, size))
	scale := float64(width) / 620
	for y := range size {
		for x := range size {
			dx, dy := float64(x-size/2), float64(y-size/2)
			u, v := int((dx*cos-dy*sin)*scale+float64(width)/2+100)-100, int((dx*sin+dy*cos)*scale+float64(width)/2+100)-100
			light := 170 + x*60/size
			if dark(u, v) {
				light = 40 + x*50/size
			}
			photo.SetGray(x, y, color.Gray{uint8(light)})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, photo, &jpeg.Options{Quality: 60}); err != nil {
		t.Fatal(err)
	}
	if got, err := readQR(&b); err != nil || got != texts[0] {
		t.Errorf("readQR() = %.40q, %v", got, err)
	}
}

func TestPicturesWithoutCodesAreRefused(t *testing.T) {
	var blank, huge bytes.Buffer
	if err := png.Encode(&blank, image.NewGray(image.Rect(0, 0, 300, 300))); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&huge, image.NewPaletted(image.Rect(0, 0, 1, 1), color.Palette{color.White})); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"blank":   blank.Bytes(),
		"cut off": blank.Bytes()[:60],
		"garbage": []byte("\x89PNG and so on"),
		"huge":    hugePNG(huge.Bytes()),
		"long":    make([]byte, maxPictureBytes+1),
	} {
		if text, err := readQR(bytes.NewReader(raw)); err == nil {
			t.Errorf("%s: %q", name, text)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// On a terminal a code must fit into 80 columns, and the picture must be what a scanner would see.
func TestTerminalCodeFitsAndReads(t *testing.T) {
	raw := make([]byte, terminalSheet)
	for i := range raw {
		raw[i] = byte(i * 7)
	}
	text := fmt.Sprintf("%s:FFFF:999:999:%s", sheetPrefix, base45(raw))
	var b bytes.Buffer
	if err := printQR(&b, text); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	drawn := image.NewGray(image.Rect(0, 0, 4*80, 4*80))
	for i := range drawn.Pix {
		drawn.Pix[i] = 255
	}
	for y, line := range lines {
		line = strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[38;5;16;48;5;231m"), "\x1b[0m")
		if n := utf8.RuneCountInString(line); n > 77 || n < 8 {
			t.Fatalf("line %d has %d columns", y, n)
		}
		for x, c := range []rune(line) {
			for i := range 16 {
				if c == '█' || c == '▀' {
					drawn.SetGray(4*x+i%4, 8*y+i/4, color.Gray{})
				}
				if c == '█' || c == '▄' {
					drawn.SetGray(4*x+i%4, 8*y+4+i/4, color.Gray{})
				}
			}
		}
	}
	if got, err := scanQR(drawn); err != nil || got != text {
		t.Errorf("the drawing reads %.40q, %v", got, err)
	}
}

// hugePNG changes a picture's size in its header to 60,000 × 60,000.
func hugePNG(raw []byte) []byte {
	copy(raw[16:], []byte{0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60})
	sum := crc(raw[12:29])
	copy(raw[29:], sum)
	return raw
}

func writeTestFile(t testing.TB, name string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}
