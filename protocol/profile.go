package protocol

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNameLength is the most characters of a profile's name that are shown.
const maxNameLength = 40

// ProfileName returns the name in a profile (kind 0), "" when there is none that can be shown. Names are claims:
// anybody can call themselves anything, so show the key beside it.
func (e Event) ProfileName() string {
	if e.kind != KindProfile {
		return ""
	}
	var p struct {
		Name        string `json:"name"`
		DisplayName string `json:"display_name"`
	}
	if json.Unmarshal([]byte(e.content), &p) != nil {
		return ""
	}
	for _, name := range []string{p.Name, p.DisplayName} {
		name = strings.TrimSpace(strings.Map(printable, name))
		if name != "" && utf8.RuneCountInString(name) <= maxNameLength {
			return name
		}
	}
	return ""
}

// printable drops what would break a line or reorder what stands around a name.
func printable(r rune) rune {
	if unicode.IsControl(r) || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' || r == '\u2028' || r == '\u2029' {
		return -1
	}
	return r
}
