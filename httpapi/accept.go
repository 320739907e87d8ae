package httpapi

import (
	"strings"

	"github.com/cairnkv/cairn/api"
)

// quality is how much a request wants a media type: 0 to 1000, and whether the
// type was named in full. No Accept header accepts everything.
func quality(accept []string, mediaType string) (q int, named bool) {
	if len(accept) == 0 {
		return 1000, false
	}
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.TrimSpace(mediaType)
	main, _, _ := strings.Cut(mediaType, "/")
	best := 0 // 1: any, 2: type/*, 3: in full
	for _, header := range accept {
		for header != "" {
			var item string
			item, header, _ = strings.Cut(header, ",")
			pattern, parameters, _ := strings.Cut(item, ";")
			pattern = strings.TrimSpace(pattern)
			specific := 0
			switch {
			case strings.EqualFold(pattern, mediaType):
				specific = 3
			case len(pattern) == len(main)+2 && strings.EqualFold(pattern[:len(main)], main) && pattern[len(main):] == "/*":
				specific = 2
			case pattern == "*/*":
				specific = 1
			}
			if specific > best {
				best, q = specific, parseQuality(parameters)
			}
		}
	}
	return q, best == 3
}

// parseQuality reads q=0.5 among the parameters of an accepted type. Some clients leave out
// the digit before the point, or write more than three behind it; a weight that can't be read
// is none.
func parseQuality(parameters string) int {
	for parameters != "" {
		var parameter string
		parameter, parameters, _ = strings.Cut(parameters, ";")
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if strings.EqualFold(name, "q") {
			if strings.HasPrefix(value, ".") {
				value = "0" + value
			}
			whole, decimals, _ := strings.Cut(value, ".")
			thousandths, ok := parseMillis(strings.TrimSuffix(whole+"."+decimals[:min(len(decimals), 3)], "."))
			if !ok || thousandths > 1000 {
				return 1000
			}
			return int(thousandths)
		}
	}
	return 1000
}

// A negotiation is which of two forms the request wants.
type negotiation uint8

const (
	wantsNeither negotiation = iota
	wantsFirst
	wantsSecond
)

// negotiate chooses between the usual form of an answer and another one, which
// must be named to win a draw.
func negotiate(accept []string, first, second string) negotiation {
	if len(accept) == 0 || len(accept) == 1 && accept[0] == "*/*" {
		return wantsFirst
	}
	q1, _ := quality(accept, first)
	q2, named := quality(accept, second)
	switch {
	case q2 > 0 && (q2 > q1 || q2 == q1 && named):
		return wantsSecond
	case q1 > 0:
		return wantsFirst
	}
	return wantsNeither
}

// checkAccept reports whether the request takes one of the types.
func (x *exchange) checkAccept(types []string) bool {
	accept := x.r.Header["Accept"]
	if len(accept) == 0 || len(types) == 0 {
		return true
	}
	for _, t := range types {
		if q, _ := quality(accept, t); q > 0 {
			return true
		}
	}
	x.refuse(api.CodeNotAcceptable, "the answer is %s", strings.Join(types, " or "))
	return false
}
