package cli

import (
	"strings"
	"testing"
)

// What is shown to people is on one line and can't upset a terminal.
func TestPreview(t *testing.T) {
	for value, want := range map[string]string{
		"":                            "",
		"text":                        "text",
		"ключ":                        "ключ",
		`say "hi"`:                    `say "hi"`,
		"a\nb\t\"c\"":                 `a\nb\t"c"`,
		"\x1b[31mred":                 `\x1b[31mred`,
		"\x00\xff":                    "(2 bytes)",
		strings.Repeat("x", 60):       strings.Repeat("x", 60),
		strings.Repeat("x", 61):       strings.Repeat("x", 60) + "… (61 bytes)",
		strings.Repeat("й", 40):       strings.Repeat("й", 30) + "… (80 bytes)",
		"a" + strings.Repeat("й", 40): "a" + strings.Repeat("й", 29) + "… (81 bytes)",
		strings.Repeat("\xff", 2048):  "(2.0 KiB)",
	} {
		if got := preview([]byte(value)); got != want {
			t.Errorf("preview(%q) = %q, want %q", value, got, want)
		}
	}
}

func TestDisplayKey(t *testing.T) {
	for key, want := range map[string]string{
		"a/b":     "a/b",
		"":        `""`,
		"a b":     `"a b"`,
		`a"b`:     `"a\"b"`,
		"a\nb":    `"a\nb"`,
		"\xff":    `"\xff"`,
		"\x1b[0m": `"\x1b[0m"`,
	} {
		if got := displayKey([]byte(key)); got != want {
			t.Errorf("displayKey(%q) = %s, want %s", key, got, want)
		}
	}
}
