package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairnkv/cairn/bench/internal/rawsse"
)

var holdColumns = []column{
	{name: "renewals/s", format: whole},
	{name: "server µs/renewal", format: three, ratio: true},
	{name: "client µs/renewal", format: three, ratio: true},
	{name: "KiB/lease", format: three, ratio: true},
	{name: "lost", format: whole},
}

const (
	// holdTTL is the time to live of leases that are held: the shortest that etcd
	// grants, so that they are renewed often.
	holdTTL    = 3 * time.Second
	holdEvery  = holdTTL / 3
	holdWithin = 20 * time.Minute
	// holdLeast is how long they are held at least, in -short, too: some renewals.
	holdLeast = 2 * holdTTL
)

// A holding keeps leases.
type holding interface {
	// lost is how many leases have ended, and why the first one did.
	lost() (int, error)
	close() error
}

// A holdDialer begins to hold the leases 0 to n-1, which exist.
type holdDialer func(ctx context.Context, addr string, n int) (holding, error)

// holdLeases keeps many leases and looks at what that costs. Cairn's server renews
// a lease itself, at a third of its time to live, while the connection is open; the
// client of etcd does so over a stream for each.
func holdLeases(ctx context.Context, set settings, data *dataset, t target) (sample, error) {
	return onFreshServer(ctx, set, data, t, holdWithin, func(ctx context.Context, r *watchRun) (sample, error) {
		n := set.Lease.Holds
		if err := r.settle(ctx); err != nil {
			return sample{}, err
		}
		empty, err := readUsage(r.pid())
		if err != nil {
			return sample{}, err
		}
		// They must live until they are held.
		h, err := r.target.dialHold(ctx, r.addr, n)
		if err != nil {
			return sample{}, err
		}
		s, err := r.hold(ctx, empty, n)
		if err == nil {
			lost, first := h.lost()
			s.values = append(s.values, float64(lost))
			s.errors, s.firstError = lost, first
		}
		return s, errors.Join(err, h.close())
	})
}

func (r *watchRun) hold(ctx context.Context, empty usage, n int) (sample, error) {
	if err := r.pause(ctx, holdTTL); err != nil {
		return sample{}, err
	}
	counted := func() (float64, error) { return 0, nil }
	if r.target.renewals != nil {
		counted = func() (float64, error) { return r.target.renewals(ctx, r.addr) }
	}
	first, err := counted()
	if err != nil {
		return sample{}, err
	}
	before, err := takeUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	if err := r.pause(ctx, max(r.set.Duration, holdLeast)); err != nil {
		return sample{}, err
	}
	after, err := readUsage(r.pid())
	if err != nil {
		return sample{}, err
	}
	took := time.Since(began).Seconds()
	last, err := counted()
	if err != nil {
		return sample{}, err
	}
	renewals := last - first
	if r.target.renewals == nil { // then it is the client that renews, at its own pace
		renewals = float64(n) / holdEvery.Seconds() * took
	}
	used := after.since(before)
	return sample{values: []float64{
		renewals / took,
		perOperation(used.server, renewals),
		perOperation(used.client, renewals),
		kibibytes(after.memory.Resident-empty.memory.Resident) / float64(n),
	}}, nil
}

// losses counts leases that ended although they were held.
type losses struct {
	n     atomic.Int64
	first atomic.Pointer[error]
}

func (l *losses) add(err error) {
	l.n.Add(1)
	l.first.CompareAndSwap(nil, &err)
}

func (l *losses) lost() (int, error) {
	if first := l.first.Load(); first != nil {
		return int(l.n.Load()), *first
	}
	return 0, nil
}

// cairnHolding are open holds, read by a poller a processor.
type cairnHolding struct {
	losses
	pollers []*rawsse.Poller
	running sync.WaitGroup
	failed  []error
}

// dialCairnHold holds so many leases by each connection.
func dialCairnHold(data *dataset, together int) holdDialer {
	return func(ctx context.Context, addr string, n int) (holding, error) {
		h := &cairnHolding{failed: make([]error, runtime.GOMAXPROCS(0))}
		for i := range h.failed {
			p, err := rawsse.NewPoller()
			if err != nil {
				return nil, errors.Join(err, h.close())
			}
			h.pollers = append(h.pollers, p)
			h.running.Go(func() {
				h.failed[i] = p.Run(func() {}, h.message, func(_ *rawsse.Conn, err error) { h.add(fmt.Errorf("%w: %w", errStreamEnded, err)) })
			})
		}
		c, err := dialCairn(data, 1)(ctx, addr, dialsAtOnce)
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		defer c.close()
		// Few are granted before they are held, so that they live until then.
		const few = 1000
		for from := 0; from < n && err == nil; from += max(few, together) {
			to := min(n, from+max(few, together))
			err = shareOut(ctx, c.sessions, to-from, 1, func(s session, which []int) error {
				return s.(leaser).grant(from+which[0], holdTTL)
			})
			if err != nil {
				break
			}
			err = shareOut(ctx, c.sessions, (to-from+together-1)/together, 1, func(_ session, which []int) error {
				first := from + which[0]*together
				return h.open(addr, first, min(to, first+together))
			})
		}
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		return h, nil
	}
}

// open holds the leases from one number up to before another.
func (h *cairnHolding) open(addr string, from, to int) error {
	path, body := fmt.Sprintf("/v1/leases/%s/hold", appendLeaseID(nil, from)), []byte(nil)
	if to-from > 1 {
		path, body = "/v1/leases/hold", []byte(`{"ids":["`)
		for i := from; i < to; i++ {
			if i > from {
				body = append(body, `","`...)
			}
			body = appendLeaseID(body, i)
		}
		body = append(body, `"]}`...)
	}
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, addr, len(body))
	if body == nil {
		request = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", path, addr)
	}
	conn, err := rawsse.Open(addr, append(request, body...), from, h.message)
	if err != nil {
		return err
	}
	return h.pollers[from/(to-from)%len(h.pollers)].Add(conn)
}

// renewalsOfCairn is how many leases the server has renewed so far.
func renewalsOfCairn(ctx context.Context, addr string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(answer, []byte("\ncairn_lease_renewals_total "))
	if !found {
		return 0, errors.New("the server does not count renewals")
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.ParseFloat(string(line), 64)
}

// message takes in what comes over a hold: that it is held, signs of life, or its
// end.
func (h *cairnHolding) message(_ *rawsse.Conn, m []byte) {
	if bytes.HasPrefix(m, []byte("event: ")) && !bytes.HasPrefix(m, []byte("event: held\n")) {
		h.add(fmt.Errorf("a lease is no longer held: %.100q", m))
	}
}

func (h *cairnHolding) close() error {
	for _, p := range h.pollers {
		p.Stop()
	}
	h.running.Wait()
	return errors.Join(h.failed...)
}

// grpcHolding are streams over shared connections, with a goroutine each that
// renews, as etcd's client does.
type grpcHolding struct {
	losses
	cancel  context.CancelFunc
	clients *clients
	running sync.WaitGroup
}

func dialGRPCHold(dial dialer) holdDialer {
	return func(ctx context.Context, addr string, n int) (holding, error) {
		ctx, cancel := context.WithCancel(ctx)
		c, err := dial(ctx, addr, n)
		if err != nil {
			cancel()
			return nil, err
		}
		h := &grpcHolding{cancel: cancel, clients: c}
		err = eachAtOnce(ctx, n, func(i int) error {
			s := c.sessions[i].(leaser)
			if err := s.grant(i, holdTTL); err != nil {
				return err
			}
			h.running.Go(func() { h.keep(ctx, s, i) })
			return nil
		})
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
		return h, nil
	}
}

func (h *grpcHolding) keep(ctx context.Context, s leaser, lease int) {
	tick := time.NewTicker(holdEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.renew(lease); err != nil {
			if ctx.Err() == nil {
				h.add(err)
			}
			return
		}
	}
}

func (h *grpcHolding) close() error {
	h.cancel()
	h.running.Wait()
	h.clients.close()
	return nil
}
