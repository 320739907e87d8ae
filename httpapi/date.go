package httpapi

import (
	"net/http"
	"sync/atomic"
	"time"
)

// A dateHeader is the Date of answers. It is written once a second and shared by
// all of them; net/http would write it for each.
type dateHeader struct{ last atomic.Pointer[date] }

type date struct {
	second int64
	values []string
}

// values returns what stands in a header at a time.
func (h *dateHeader) values(now time.Time) []string {
	d := h.last.Load()
	if second := now.Unix(); d == nil || d.second != second {
		d = &date{second, []string{now.UTC().Format(http.TimeFormat)}}
		h.last.Store(d)
	}
	return d.values
}
