package main

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// busySession takes a while for each request, one at a time.
type busySession struct {
	session
	takes time.Duration
	err   error
}

func busyStep(s session, _ *rand.Rand) (int, error) {
	busy := s.(busySession)
	time.Sleep(busy.takes)
	return 1, busy.err
}

// TestOpenLoop: all that is due is sent or given up, and what waited for others is
// as late as it was.
func TestOpenLoop(t *testing.T) {
	const duration, takes = 100 * time.Millisecond, 2 * time.Millisecond
	loop := openLoop{rate: 2000, duration: duration, patience: time.Hour, do: busyStep}
	fast, err := loop.run(t.Context(), []session{busySession{}, busySession{}})
	if err != nil || fast.done < 100 || fast.done > 300 || fast.lost() != 0 {
		t.Fatalf("%d of some 200 requests, %v", fast.done, err)
	}
	slow, err := loop.run(t.Context(), []session{busySession{takes: takes}})
	if err != nil || slow.done != fast.done {
		t.Fatalf("%d requests, %d of a slower server, %v", fast.done, slow.done, err)
	}
	// The last began after all others had taken their time.
	if least := time.Duration(slow.done)*takes - duration; slow.latency.Max() < least {
		t.Errorf("the latest answer took %v from when it was due, which can't be less than %v", slow.latency.Max(), least)
	}
	loop.patience = 10 * time.Millisecond
	hasty, err := loop.run(t.Context(), []session{busySession{takes: takes}})
	if err != nil || hasty.unsent == 0 || hasty.done+hasty.unsent != fast.done {
		t.Errorf("%d done and %d given up of %d, %v", hasty.done, hasty.unsent, fast.done, err)
	}
}

// TestOutcomes: what a server refuses and what it fails is counted, and ends neither
// loop; a broken connection does.
func TestOutcomes(t *testing.T) {
	const duration = 20 * time.Millisecond
	loop := openLoop{rate: 1000, duration: duration, patience: time.Hour, do: busyStep}
	for name, tt := range map[string]struct {
		err             error
		refused, broken bool
	}{
		"429":         {unexpected("put", http.StatusTooManyRequests, nil), true, false},
		"503":         {unexpected("put", http.StatusServiceUnavailable, nil), true, false},
		"exhausted":   {status.Error(codes.ResourceExhausted, "too many requests"), true, false},
		"unavailable": {status.Error(codes.Unavailable, "timed out"), true, false},
		"etcd":        {status.Error(codes.Unknown, "etcdserver: too many requests"), true, false},
		"gateway":     {unexpected("put", http.StatusInternalServerError, []byte(`{"message":"etcdserver: too many requests"}`)), true, false},
		"unknown":     {status.Error(codes.Unknown, "mvcc: something"), false, false},
		"504":         {unexpected("put", http.StatusGatewayTimeout, nil), false, false},
		"deadline":    {status.Error(codes.DeadlineExceeded, "late"), false, false},
		"reset":       {errors.New("connection reset"), false, true},
		"canceled":    {status.Error(codes.Canceled, "closing"), false, true},
	} {
		sessions := []session{busySession{err: tt.err}}
		open, err := loop.run(t.Context(), sessions)
		if (err != nil) != tt.broken || tt.broken && !errors.Is(err, tt.err) {
			t.Errorf("%s: an open loop ends with %v", name, err)
		}
		closed, _, err := crowd(t.Context(), sessions, busyStep, duration)
		if (err != nil) != tt.broken {
			t.Errorf("%s: a closed loop ends with %v", name, err)
		}
		if tt.broken {
			continue
		}
		for _, got := range []outcome{open.outcome, closed} {
			wrong := got.failed
			if tt.refused {
				wrong = got.refused
			}
			if wrong == 0 || got.refused+got.failed != wrong || got.done != 0 || got.lost() != 1 || (got.firstError == nil) != tt.refused {
				t.Errorf("%s: %d refused, %d failed, %d done, the first: %v", name, got.refused, got.failed, got.done, got.firstError)
			}
		}
	}
}

func TestCrowd(t *testing.T) {
	sessions := make([]session, 40) // more than there are counters
	for i := range sessions {
		sessions[i] = busySession{takes: time.Millisecond}
	}
	got, elapsed, err := crowd(t.Context(), sessions, busyStep, 5*time.Millisecond)
	if err != nil || got.done < len(sessions) || got.latency.Count() != uint64(got.done) || elapsed < 5*time.Millisecond {
		t.Errorf("%d done, %d latencies in %v, %v", got.done, got.latency.Count(), elapsed, err)
	}
}
