package cli

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a number of bytes as a flag: "16GiB", "500MB" or a bare number.
type size uint64

var units = []struct {
	name  string
	bytes uint64
}{
	// Longer names first: each ends with a shorter one.
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}, {"", 1},
}

// String writes the size in the largest unit that it is a whole number of.
func (s *size) String() string {
	for _, u := range units[:4] {
		if n := uint64(*s); n > 0 && n%u.bytes == 0 {
			return strconv.FormatUint(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatUint(uint64(*s), 10)
}

// Type names the flag's type in its help.
func (s *size) Type() string { return "size" }

// Set reads a whole number with or without a unit.
func (s *size) Set(text string) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
		if errors.Is(err, strconv.ErrRange) || err == nil && n > math.MaxInt64/u.bytes {
			return fmt.Errorf("%q is too large", text)
		}
		if err != nil {
			break
		}
		*s = size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size such as 16GiB, 500MB or 1048576", text)
}

// sizeText is a number of bytes for people.
func sizeText(n uint64) string {
	if n < 1<<10 {
		return plural(n, "byte")
	}
	for i := 3; ; i-- {
		if u := units[i]; n < u.bytes<<10 || i == 0 {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
}
