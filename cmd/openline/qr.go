package main

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/jpeg" // image.Decode knows the formats that are imported
	"image/png"
	"io"
	"strings"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"
	"github.com/makiuchi-d/gozxing/qrcode/decoder"
	"github.com/makiuchi-d/gozxing/qrcode/encoder"
)

const (
	quietZone = 4 // modules of white around a code (ISO/IEC 18004)
	pngScale  = 6 // pixels to a module

	maxPictureBytes  = 32 << 20
	maxPicturePixels = 25_000_000 // a phone's camera; a PNG can take eight bytes for each
)

// module reports whether a code is dark at a place, which may be in the quiet zone.
type module func(x, y int) bool

// encodeQR returns a code and its width with the quiet zone.
func encodeQR(text string, level decoder.ErrorCorrectionLevel) (module, int, error) {
	code, err := encoder.Encoder_encode(text, level, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("make a QR code of %d characters: %w", len(text), err)
	}
	m := code.GetMatrix()
	dark := func(x, y int) bool {
		x, y = x-quietZone, y-quietZone
		return x >= 0 && y >= 0 && x < m.GetWidth() && y < m.GetHeight() && m.Get(x, y) == 1
	}
	return dark, m.GetWidth() + 2*quietZone, nil
}

// printQR draws a code on a terminal, two modules to a character. The colours are set and not the terminal's own,
// because scanners want dark on light. A screen is clean, so the least error correction will do.
func printQR(w io.Writer, text string) error {
	dark, width, err := encodeQR(text, decoder.ErrorCorrectionLevel_L)
	if err != nil {
		return err
	}
	const blackOnWhite, asBefore = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
	var b strings.Builder
	for y := 0; y < width; y += 2 {
		b.WriteString(blackOnWhite)
		for x := range width {
			switch up, down := dark(x, y), dark(x, y+1); {
			case up && down:
				b.WriteString("█")
			case up:
				b.WriteString("▀")
			case down:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString(asBefore + "\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// writeQR writes a code as a PNG for paper, which gets folded and stained: up to 15 % of it may be unreadable.
func writeQR(w io.Writer, text string) error {
	dark, width, err := encodeQR(text, decoder.ErrorCorrectionLevel_M)
	if err != nil {
		return err
	}
	size := width * pngScale
	img := image.NewPaletted(image.Rect(0, 0, size, size), color.Palette{color.White, color.Black})
	for y := range size {
		for x := range size {
			if dark(x/pngScale, y/pngScale) {
				img.SetColorIndex(x, y, 1)
			}
		}
	}
	return png.Encode(w, img)
}

// isPicture reports whether a file begins like PNG or JPEG.
func isPicture(head []byte) bool {
	return bytes.HasPrefix(head, []byte("\x89PNG")) || bytes.HasPrefix(head, []byte("\xff\xd8\xff"))
}

// readQR returns the text of the code in a picture, PNG or JPEG. The picture's size is checked before it is decoded.
func readQR(r io.Reader) (string, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxPictureBytes+1))
	if err != nil {
		return "", err
	}
	if len(raw) > maxPictureBytes {
		return "", fmt.Errorf("the picture has more than %d MiB", maxPictureBytes>>20)
	}
	size, _, err := image.DecodeConfig(bytes.NewReader(raw))
	if err != nil {
		return "", fmt.Errorf("read the picture: %w", err)
	}
	if size.Width < 1 || size.Height < 1 || size.Width > maxPicturePixels/size.Height {
		return "", fmt.Errorf("the picture has %d × %d pixels, which is too many", size.Width, size.Height)
	}
	img, _, err := image.Decode(bytes.NewReader(raw))
	if err != nil {
		return "", fmt.Errorf("read the picture: %w", err)
	}
	return scanQR(img)
}

// scanQR looks for a code as in a photo, then as in a clean drawing: each finds some that the other does not.
func scanQR(img image.Image) (string, error) {
	light := gozxing.NewLuminanceSourceFromImage(img)
	for _, try := range []struct {
		binarizer gozxing.Binarizer
		hint      gozxing.DecodeHintType
	}{
		{gozxing.NewHybridBinarizer(light), gozxing.DecodeHintType_TRY_HARDER},
		{gozxing.NewHybridBinarizer(light), gozxing.DecodeHintType_PURE_BARCODE},
		{gozxing.NewGlobalHistgramBinarizer(light), gozxing.DecodeHintType_TRY_HARDER},
	} {
		bitmap, err := gozxing.NewBinaryBitmap(try.binarizer)
		if err != nil {
			return "", err
		}
		found, err := qrcode.NewQRCodeReader().Decode(bitmap, map[gozxing.DecodeHintType]any{try.hint: true})
		if err == nil {
			return found.GetText(), nil
		}
	}
	return "", errors.New("no QR code was found in the picture")
}
