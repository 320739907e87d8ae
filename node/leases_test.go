package node

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cairnkv/cairn/api"
)

// three starts a cluster of three and returns a client of each node.
func three(t *testing.T) (users []*user, configs []Config) {
	t.Helper()
	var cluster []string
	for i := range 3 {
		cfg := config(t)
		cfg.Name = fmt.Sprint("n", i+1)
		configs = append(configs, cfg)
		cluster = append(cluster, cfg.Name+"="+cfg.PeerListen)
	}
	for i := range configs {
		configs[i].InitialCluster = strings.Join(cluster, ",")
		users = append(users, newUser(t, open(t, configs[i])))
	}
	awaitReady(t, users)
	return users, configs
}

func awaitReady(t *testing.T, users []*user) {
	t.Helper()
	for _, u := range users {
		eventually(t, "the node is ready", func() bool { return u.n.Ready() == nil })
	}
}

// read sends a request and reads the answer, if it is a success.
func (u *user) read(method, path, body string, v any) (status int) {
	u.t.Helper()
	status, text, err := u.try(method, path, body)
	must(u.t, err)
	if status < 300 {
		must(u.t, json.Unmarshal([]byte(text), v))
	}
	return status
}

// TestLeaseIsNeverEarly renews leases of a second through all nodes, at random
// moments before and around their end, while the leadership moves. Whatever ends
// has had its whole time to live since the last renewal that was answered, was
// sent.
func TestLeaseIsNeverEarly(t *testing.T) {
	t.Parallel()
	users, _ := three(t)
	const ttl = time.Second
	var wg sync.WaitGroup
	var mu sync.Mutex
	renewed, raced := 0, 0
	for i := range 40 {
		wg.Go(func() {
			any := func() *user { return users[rand.N(len(users))] }
			var g api.Granted
			sent := time.Now()
			if status := any().read("POST", "/v1/leases", `{"ttl_seconds":1}`, &g); status != 201 {
				return // the leadership moved; what becomes of this one is not known
			}
			key := fmt.Sprint("/v1/kv/leased/", i)
			if status, _, _ := any().try("PUT", key+"?lease="+g.ID, "v"); status != 201 {
				return
			}
			gone := func(what string) {
				if lived := time.Since(sent); lived < ttl {
					t.Errorf("lease %d was gone %v after a renewal was sent, says %s", i, lived, what)
				}
			}
			for range 4 {
				// The lease ends about 2 s after its renewal: some come too late.
				pause := time.NewTimer(rand.N(2800 * time.Millisecond))
				<-pause.C
				now := time.Now()
				status, _, err := any().try("POST", "/v1/leases/"+g.ID+"/keepalive", "")
				if err != nil {
					t.Error(err)
				}
				switch status {
				case 200:
					sent = now
					mu.Lock()
					renewed++
					mu.Unlock()
				case 404:
					gone("the renewal")
					mu.Lock()
					raced++
					mu.Unlock()
					return
				}
				// A renewal that was answered holds the key.
				if status, _, _ := any().try("GET", key, ""); status == 404 {
					gone("the key")
				}
				var l api.Lease
				began := time.Now()
				if any().read("GET", "/v1/leases/"+g.ID, "", &l) == 200 && l.RemainingSeconds > 0 {
					// It lives for as long as was said, at least.
					end := began.Add(time.Duration(l.RemainingSeconds * float64(time.Second)))
					if status, _, _ := any().try("GET", key, ""); status == 404 && time.Now().Before(end) {
						t.Errorf("lease %d was gone %v before its remaining time was over", i, time.Until(end))
					}
				}
			}
			for deadline := time.Now().Add(patience); ; {
				status, _, _ := any().try("GET", key, "")
				if status == 404 {
					break
				}
				if time.Now().After(deadline) {
					t.Errorf("lease %d does not end", i)
					return
				}
			}
			gone("the key")
			if status := any().read("GET", "/v1/leases/"+g.ID, "", &api.Lease{}); status == 200 {
				t.Errorf("the key of lease %d is gone before it", i)
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	for moving, tick := true, time.NewTicker(1500*time.Millisecond); moving; {
		select {
		case <-ended:
			moving = false
			tick.Stop()
		case <-tick.C:
			for _, u := range users {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_ = u.n.shard.HandOver(ctx) // it is of no matter whether it worked
				cancel()
			}
		}
	}
	if renewed == 0 {
		t.Error("nothing was renewed")
	}
	t.Logf("%d renewals, %d came too late", renewed, raced)
	history, _, err := users[0].try("GET", "/v1/history?key=leased/0", "")
	if err != nil || history != 200 && history != 404 {
		t.Error(history, err)
	}
	expired := uint64(0)
	for _, u := range users {
		expired += u.n.clock.Expired()
	}
	if expired == 0 {
		t.Error("no end was counted")
	}
	users[0].want(200, "cairn_lease_renewals_total", "GET", "/metrics", "")
}

// TestLeaseKeepsItsTime looks at what is left of a lease before and after all
// nodes were down, and after the leader went: it is less by no more than the time
// that has passed, and it is not what it was at first.
func TestLeaseKeepsItsTime(t *testing.T) {
	t.Parallel()
	users, configs := three(t)
	var g api.Granted
	if status := users[0].read("POST", "/v1/leases", `{"ttl_seconds":604800}`, &g); status != 201 {
		t.Fatal(status)
	}
	users[1].want(201, "", "PUT", "/v1/kv/week?lease="+g.ID, "v")
	remaining := func(u *user) (left time.Duration) {
		eventually(t, "the lease is read", func() bool {
			var l api.Lease
			left = 0
			if u.read("GET", "/v1/leases/"+g.Number, "", &l) == 200 {
				left = time.Duration(l.RemainingSeconds * float64(time.Second))
			}
			return left != 0
		})
		return left
	}
	eventually(t, "some of its time is over", func() bool { return remaining(users[0]) < 604_799*time.Second })
	for round, disturb := range []func(){
		func() {
			for _, u := range users {
				must(t, u.n.Close())
			}
			for i := range users {
				users[i] = newUser(t, open(t, configs[i]))
			}
		},
		func() {
			for i, u := range users {
				if s := u.n.Status(); s.Leader == s.Replica {
					must(t, u.n.Close())
					users[i] = newUser(t, open(t, configs[i]))
					return
				}
			}
			t.Error("nobody leads")
		},
	} {
		began := time.Now()
		before := remaining(users[round])
		disturb()
		awaitReady(t, users)
		for _, u := range users {
			after := remaining(u)
			// A step of the clock that was on its way adds up to half a second.
			if after > before || before-after > time.Since(began)+500*time.Millisecond {
				t.Errorf("round %d: %v was left, and %v after %v", round, before, after, time.Since(began))
			}
		}
		last := remaining(users[0])
		eventually(t, "its time goes on", func() bool { return remaining(users[0]) < last })
	}
	users[2].want(200, "v", "GET", "/v1/kv/week", "")
	var r api.Revoked
	if status := users[2].read("DELETE", "/v1/leases/"+g.ID, "", &r); status != 200 || r.Deleted != 1 {
		t.Error(status, r)
	}
	users[1].want(200, `"reason":"revoked"`, "GET", "/v1/history/week", "")
}

// TestExpiryIsAnEvent: the history says why a key is gone.
func TestExpiryIsAnEvent(t *testing.T) {
	t.Parallel()
	u := newUser(t, ready(t, config(t)))
	u.want(201, "", "PUT", "/v1/kv/short?ttl=1s", "v")
	eventually(t, "the key is gone", func() bool { status, _, _ := u.try("GET", "/v1/kv/short", ""); return status == 404 })
	u.want(200, `"reason":"expired"`, "GET", "/v1/history/short", "")
	eventually(t, "it is counted", func() bool {
		_, text, err := u.try("GET", "/metrics", "")
		must(t, err)
		return strings.Contains(text, "cairn_leases_expired_total 1\n")
	})
}
