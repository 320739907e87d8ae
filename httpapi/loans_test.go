package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairnkv/cairn/internal/testkit"
	"github.com/cairnkv/cairn/kv"
	"github.com/cairnkv/cairn/watchers"
)

func TestLoans(t *testing.T) {
	l := newLoans(prometheus.NewCounter(prometheus.CounterOpts{Name: "broken"}))
	var lent []*loan
	ended := make(chan int, maxLoans)
	for i := range maxLoans {
		n, err := l.take(t.Context(), nil, nil, func() { ended <- i })
		must(t, err)
		lent = append(lent, n)
	}
	began := time.Now()
	for i, n := range lent {
		n.writes(began.Add(time.Duration((i+40)%maxLoans) * time.Millisecond)) // the 24th has written for the longest time
	}
	draining, none := make(chan struct{}), make(chan time.Time)
	take := func(ctx context.Context, pulse <-chan time.Time) (*loan, error) {
		return l.take(ctx, draining, pulse, func() { t.Error("a young loan is ended") })
	}
	// Whoever waits is told of the time, and of the end of their own and of the server.
	fired := make(chan time.Time, 1)
	fired <- time.Now()
	if n, err := take(t.Context(), fired); n != nil || err != nil {
		t.Errorf("at the pulse: %v, %v", n, err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := take(gone, none); !errors.Is(err, context.Canceled) {
		t.Errorf("who is gone gets %v", err)
	}
	// What is given back goes to who waits; nobody is broken off for it.
	lent[5].giveBack()
	n, err := take(t.Context(), none)
	must(t, err)
	n.giveBack()
	lent[5], err = take(t.Context(), none)
	must(t, err)
	if len(ended) > 0 {
		t.Error("a stream was broken off, although none was old")
	}
	// Who has got a loan for however long, and writes nothing, is not waited for.
	lent[24].writes(time.Time{})
	l.call(began.Add(l.patience))
	if len(ended) > 0 {
		t.Error("a stream was broken off that writes nothing")
	}
	must(t, lent[24].during(func([]byte) error {
		l.call(time.Now().Add(l.patience - time.Minute))
		return nil
	}, nil))
	lent[24].writes(began)
	// The oldest gives way, once, and what it had is free when it says so.
	l.patience = 10 * time.Millisecond
	done := make(chan error, 1)
	go func() {
		n, err := take(t.Context(), none)
		n.giveBack()
		done <- err
	}()
	if i := <-ended; i != 24 {
		t.Errorf("%d gives way, want the oldest", i)
	}
	lent[24].giveBack()
	must(t, <-done)
	close(draining)
	n, err = take(t.Context(), none)
	must(t, err) // there is room
	if _, err := take(t.Context(), none); !errors.Is(err, watchers.ErrDraining) {
		t.Errorf("while the server stops: %v", err)
	}
	n.giveBack()
	(*loan)(nil).giveBack()
}

// TestStalledWatchesGiveWay has as many clients as may read history or the present state
// take nothing of it. Another one has what it asked for all the same.
func TestStalledWatchesGiveWay(t *testing.T) {
	for _, query := range []string{"from_revision=1", "initial=true"} {
		t.Run(query, func(t *testing.T) {
			k := newKit(t)
			k.server.loans.patience = 50 * time.Millisecond
			const values = 8
			for i := range values {
				k.put(fmt.Sprintf("big/%d", i), strings.Repeat("v", kv.MaxValueBytes))
			}
			for range maxLoans {
				conn := k.dial()
				must(t, conn.conn.(*net.TCPConn).SetReadBuffer(4<<10))
				conn.send("GET /v1/watch?prefix=big/&" + query + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
			}
			testkit.Eventually(t, "nothing more is to be had", func() bool { return len(k.server.loans.free) == maxLoans })
			w := k.watch("prefix=big/&from_revision=1")
			for i := range values {
				if got, want := w.next(), fmt.Sprintf("key:big/%d,", i); !strings.Contains(got, want) {
					t.Fatalf("got %.100q, want %s", got, want)
				}
			}
			if a := k.do("GET", "/v1/watch?prefix=big/&wait=0s&from_revision=1", nil); a.StatusCode != 200 || !strings.Contains(string(a.body), `"key":"big/0"`) {
				t.Errorf("a long poll is answered %d %.100s", a.StatusCode, a.body)
			}
			if k.sheds(shedMemory) < 1 {
				t.Error("no stream was broken off")
			}
		})
	}
}
