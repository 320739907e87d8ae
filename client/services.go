package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/cairnkv/cairn/api"
)

// A Registration is an instance of a service that this process keeps alive. It is
// safe for concurrent use.
type Registration struct {
	c      *Client
	target string
	stop   context.CancelFunc
	done   chan struct{}

	mu  sync.Mutex
	err error
}

// Register registers an instance and renews it after each third of its time to live,
// which is 10 s if r has neither one nor a lease, or that of its lease, until
// Deregister or until ctx ends. If the registration is gone meanwhile, because no node answered for longer
// than it lives, the next renewal makes it anew.
//
// A registration and its renewals are sent again when it is not known what became of
// them: they all say the same. One that a node held up may arrive late. After
// Deregister it makes the instance live again, and it replaces what was registered
// under the same name since. The first ends with its time to live, or with its Lease
// if it has one, and the second with the next renewal of the other. Where that is too
// long, register under a Lease of its own and revoke it after Deregister: what comes
// later under it is refused.
func (c *Client) Register(ctx context.Context, service, instance string, r api.Registration) (*Registration, error) {
	if r.TTLSeconds == 0 && r.Lease == "" {
		r.TTLSeconds = defaultLockTTL.Seconds()
	}
	g := &Registration{c: c, target: serviceTarget(service, instance), done: make(chan struct{})}
	ttl := r.TTLSeconds
	if r.Lease != "" {
		lease, err := c.Leases().Renew(ctx, r.Lease)
		if err != nil {
			return nil, err
		}
		ttl = lease.TTLSeconds
	}
	every := time.Duration(ttl * float64(time.Second) / 3)
	if err := g.renew(ctx, r); err != nil {
		return nil, err
	}
	ctx, g.stop = context.WithCancel(ctx)
	go g.keep(ctx, r, every)
	return g, nil
}

// keep renews the registration until ctx ends.
func (g *Registration) keep(ctx context.Context, r api.Registration, every time.Duration) {
	defer close(g.done)
	pause := every
	for sleep(ctx, pause) {
		limited, cancel := context.WithTimeout(ctx, every)
		err := g.renew(limited, r)
		cancel()
		if ctx.Err() != nil {
			return
		}
		pause = every
		if err != nil {
			pause = every / 3
		}
		g.mu.Lock()
		g.err = err
		g.mu.Unlock()
	}
}

func (g *Registration) renew(ctx context.Context, registration api.Registration) error {
	r := newRequest(http.MethodPut, g.target)
	r.harmless = true // as Register says; keep would send it again anyway
	if err := r.setJSON(registration); err != nil {
		return err
	}
	_, err := call[api.Instance](ctx, g.c, r)
	return err
}

// Err is why the last renewal failed; nil while renewals succeed.
func (g *Registration) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// Done is closed when nothing is renewed any more.
func (g *Registration) Done() <-chan struct{} { return g.done }

// Deregister ends the registration now. With [ErrOutcomeUnknown] it may live on for
// its time to live, or as long as its lease, but it is not renewed any more.
func (g *Registration) Deregister(ctx context.Context) error {
	g.stop()
	<-g.done
	_, err := g.c.deregister(ctx, g.target)
	return err
}

// Deregister ends a registration, whoever made it, and says whether there was one.
// It is not repeated after [ErrOutcomeUnknown]: arriving late, it would end a
// registration that was made since.
func (c *Client) Deregister(ctx context.Context, service, instance string) (bool, error) {
	return c.deregister(ctx, serviceTarget(service, instance))
}

func (c *Client) deregister(ctx context.Context, target string) (bool, error) {
	r := newRequest(http.MethodDelete, target)
	result, err := call[api.DeleteResult](ctx, c, r)
	if err != nil {
		return false, err
	}
	return result.Deleted > 0, nil
}

// Instance reads a registration. One that is not alive is [ErrNotFound].
func (c *Client) Instance(ctx context.Context, service, instance string, opts ...ReadOption) (*api.Instance, error) {
	r := newRead(serviceTarget(service, instance), opts)
	return call[api.Instance](ctx, c, r)
}

// Instances goes through the live instances of a service in the order of their
// names, page after page; through those that have the tag, if it is not empty. An
// error ends it. To follow a service, watch [ServiceKeys].
func (c *Client) Instances(ctx context.Context, service, tag string, opts ...ReadOption) iter.Seq2[api.Instance, error] {
	return func(yield func(api.Instance, error) bool) {
		r := newRequest(http.MethodGet, "/v1/services/"+url.PathEscape(service))
		if tag != "" {
			r.query.Set("tag", tag)
		}
		r.query.Set("limit", "1000")
		for _, o := range opts {
			o.get(r)
		}
		for {
			page, err := call[api.Instances](ctx, c, r)
			if err != nil {
				yield(api.Instance{}, err)
				return
			}
			for _, i := range page.Instances {
				if !yield(i, nil) {
					return
				}
			}
			if !page.More {
				return
			}
			r.query.Set("after", page.Instances[len(page.Instances)-1].Instance)
		}
	}
}

// Services goes through the names of the services that have a live instance, in
// order. An error ends it.
func (c *Client) Services(ctx context.Context, opts ...ReadOption) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		r := newRequest(http.MethodGet, "/v1/services")
		r.query.Set("limit", "1000")
		for _, o := range opts {
			o.get(r)
		}
		for {
			page, err := call[api.Services](ctx, c, r)
			if err != nil {
				yield("", err)
				return
			}
			for _, name := range page.Services {
				if !yield(name, nil) {
					return
				}
			}
			if !page.More {
				return
			}
			r.query.Set("after", page.Services[len(page.Services)-1])
		}
	}
}

// ServiceKeys is the keys of the instances of a service, to be watched. Their
// values are JSON, as [api.Registration].
func ServiceKeys(service string) Keys { return Prefix("_cairn/services/" + service + "/") }

func serviceTarget(service, instance string) string {
	return "/v1/services/" + url.PathEscape(service) + "/" + url.PathEscape(instance)
}
