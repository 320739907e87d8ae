package httpapi

import "strconv"

// parseUint reads decimal digits and nothing else: no sign, no space, no
// underscore. It refuses what 64 bits don't hold.
func parseUint(s string) (uint64, bool) {
	if len(s) == 0 || len(s) > 20 {
		return 0, false
	}
	var n uint64
	for i := 0; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return 0, false
		}
		if n > (1<<64-1-uint64(c))/10 {
			return 0, false
		}
		n = n*10 + uint64(c)
	}
	return n, true
}

// parseMillis reads a decimal number with up to three digits after the point,
// in thousandths. It never rounds: more digits are refused.
func parseMillis(s string) (int64, bool) {
	whole, frac := s, ""
	for i := 0; i < len(s); i++ {
		if s[i] == '.' {
			whole, frac = s[:i], s[i+1:]
			if frac == "" || len(frac) > 3 {
				return 0, false
			}
			break
		}
	}
	n, ok := parseUint(whole)
	if !ok || n > 1<<53 {
		return 0, false
	}
	ms := int64(n) * 1000
	scale := int64(100)
	for i := 0; i < len(frac); i++ {
		c := frac[i] - '0'
		if c > 9 {
			return 0, false
		}
		ms += int64(c) * scale
		scale /= 10
	}
	return ms, true
}

// parseDuration reads 250ms, 30s, 5m, 168h or a bare number of seconds, in
// milliseconds.
func parseDuration(s string) (int64, bool) {
	unit := len(s)
	for unit > 0 && (s[unit-1] < '0' || s[unit-1] > '9') {
		unit--
	}
	n, ok := parseMillis(s[:unit])
	if !ok {
		return 0, false
	}
	factor := int64(0)
	switch s[unit:] {
	case "ms":
		if n%1000 != 0 {
			return 0, false
		}
		return n / 1000, true
	case "", "s":
		factor = 1
	case "m":
		factor = 60
	case "h":
		factor = 3600
	default:
		return 0, false
	}
	if n > (1<<63-1)/factor {
		return 0, false
	}
	return n * factor, true
}

// seconds writes milliseconds as a decimal number of seconds.
func seconds(ms int64) string {
	return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64)
}
