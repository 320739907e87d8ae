package cli

import "testing"

func TestSize(t *testing.T) {
	for text, want := range map[string]size{
		"0":          0,
		"1":          1,
		"1B":         1,
		"1KiB":       1 << 10,
		"1kB":        1000,
		"500MB":      500_000_000,
		"16GiB":      16 << 30,
		"16 GiB":     16 << 30,
		"2TiB":       2 << 40,
		"8388607TiB": 8388607 << 40,
	} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("Set(%q): %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "1XB", "1 2", "0x10", "8388608TiB", "99999999999999999999"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("Set(%q) is accepted, as %d", text, s)
		}
	}
}

// What a size is written as means the same size.
func TestSizeString(t *testing.T) {
	for want, s := range map[string]size{"0": 0, "1023": 1023, "1KiB": 1 << 10, "1536KiB": 1536 << 10, "16GiB": 16 << 30} {
		if got := s.String(); got != want {
			t.Errorf("%d is written %s, want %s", s, got, want)
		}
		var again size
		if err := again.Set(want); err != nil || again != s {
			t.Errorf("Set(%q): %d, %v", want, again, err)
		}
	}
}

func TestSizeText(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 bytes", 1: "1 byte", 1023: "1023 bytes", 1024: "1.0 KiB", 1536: "1.5 KiB",
		5 << 20: "5.0 MiB", 3 << 30: "3.0 GiB", 1 << 40: "1.0 TiB", 2048 << 40: "2048.0 TiB",
	} {
		if got := sizeText(n); got != want {
			t.Errorf("sizeText(%d) = %s, want %s", n, got, want)
		}
	}
}
