package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"
)

// profileJoin has no peer: etcd's promotion of a learner is its user's business, so
// there is no moment that could be compared.
const profileJoin = "cluster-join"

// joinSettings say what a node joins. Each is a flag.
type joinSettings struct {
	Keys int `json:"keys"` // that the cluster holds
	Rate int `json:"rate"` // puts a second meanwhile
}

var (
	usualJoinSettings = joinSettings{Keys: 1_000_000, Rate: 500}
	shortJoinSettings = joinSettings{Keys: 20_000, Rate: 100}
)

func (s *joinSettings) register(f *flag.FlagSet) {
	f.IntVar(&s.Keys, "join-keys", s.Keys, "keys of the cluster that a node joins, in cluster-join")
	f.IntVar(&s.Rate, "join-rate", s.Rate, "puts a second meanwhile")
}

var joinColumns = []column{
	{name: "caught up s", format: three},
	{name: "votes s", format: three},
	{name: "p99 before ms", format: three},
	{name: "p99 joining ms", format: three},
	{name: "p99 after ms", format: three},
	{name: "joining / before", format: three},
	{name: "p50 before ms", format: three},
	{name: "p50 joining ms", format: three},
	{name: "longest joining ms", format: three},
	{name: "puts/s joining", format: whole},
	{name: "snapshots", format: whole},
	{name: "elections", format: whole},
}

const (
	// joinWriters is how many puts may be under way at once.
	joinWriters = 64
	// joinWithin bounds one measurement, and joinedWithin the wait for the new
	// node.
	joinWithin   = 15 * time.Minute
	joinedWithin = 5 * time.Minute
)

// join measures the profile, if name is its.
func (b *bench) join(ctx context.Context, name string) (*result, bool) {
	if name != profileJoin {
		return nil, false
	}
	var targets []target
	for _, t := range b.targets {
		if t.joinCommand != nil {
			targets = append(targets, t)
		}
	}
	r := &result{
		profile: profileJoin,
		about: fmt.Sprintf("a node joins three that hold %s keys, beside %d puts a second of keys at random to the three",
			whole(float64(b.set.Join.Keys)), b.set.Join.Rate),
		columns: joinColumns,
	}
	b.alternate(ctx, r, targets, func(t target) (sample, error) { return join(ctx, b.set, b.data, t) })
	return r, true
}

// join fills a cluster, puts keys at a fixed rate, and starts one more node. It has
// caught up when it is ready: a linearizable round of its own has succeeded. Delays
// are from when a put was due. In the end all four must have the same content.
func join(ctx context.Context, set settings, data *dataset, t target) (_ sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	servers, err := t.startCluster(ctx, set.Dir)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, servers.discard()) }()
	if err := servers.fill(ctx, set.Join.Keys); err != nil {
		return sample{}, err
	}
	c, err := servers.dial(ctx, t.dial, joinWriters)
	if err != nil {
		return sample{}, err
	}
	defer c.close()
	random := rand.New(rand.NewPCG(3, 5))
	keys := make([]int, 1<<16)
	for i := range keys {
		keys[i] = random.IntN(set.Join.Keys)
	}
	load := &paced{
		data: data, rate: set.Join.Rate, numbers: new(atomic.Uint64),
		key: func(n int) int { return keys[n%len(keys)] },
	}
	if _, err := load.drive(ctx, c.sessions, set.Duration/5); err != nil {
		return sample{}, err
	}
	if err := quiet(set.Dir); err != nil {
		return sample{}, err
	}
	before, err := load.drive(ctx, c.sessions, set.Duration)
	if err != nil {
		return sample{}, err
	}

	term, err := servers.term(ctx)
	if err != nil {
		return sample{}, err
	}
	token, id, err := servers.reserve(ctx)
	if err != nil {
		return sample{}, err
	}
	joined := make(chan struct{})
	load.until = joined
	var newcomer *server
	var caughtUp, votes time.Duration
	var joinErr error
	go func() { // ends with joinedWithin, or the context
		defer close(joined)
		newcomer, caughtUp, votes, joinErr = servers.admit(ctx, set.Dir, token, id)
	}()
	during, err := load.drive(ctx, c.sessions, joinedWithin)
	if err != nil {
		cancel() // nobody needs to wait for the node
	}
	<-joined
	if newcomer != nil {
		defer func() { err = errors.Join(err, newcomer.discard()) }()
	}
	if err := errors.Join(err, joinErr); err != nil {
		return sample{}, err
	}
	elected, err := servers.term(ctx)
	if err != nil {
		return sample{}, err
	}
	load.until = nil
	after, err := load.drive(ctx, c.sessions, set.Duration)
	if err != nil {
		return sample{}, err
	}
	if err := append(servers, newcomer).equal(ctx); err != nil {
		return sample{}, err
	}
	log, err := os.ReadFile(newcomer.logPath)
	if err != nil {
		return sample{}, err
	}
	p99 := milliseconds(during.latency.Quantile(0.99))
	return sample{values: []float64{
		caughtUp.Seconds(),
		votes.Seconds(),
		milliseconds(before.latency.Quantile(0.99)),
		p99,
		milliseconds(after.latency.Quantile(0.99)),
		p99 / milliseconds(before.latency.Quantile(0.99)),
		milliseconds(before.latency.Quantile(0.50)),
		milliseconds(during.latency.Quantile(0.50)),
		milliseconds(during.latency.Max()),
		float64(during.puts) / during.elapsed.Seconds(),
		float64(bytes.Count(log, []byte("A snapshot took the place of the state."))),
		float64(elected - term),
	}}, nil
}

// fill loads keys, which is not measured here: one request at a time, so that three
// servers on one machine keep up, and again if that did not do. The same lines
// leave the same keys.
func (c cluster) fill(ctx context.Context, keys int) error {
	const tries = 5
	one, err := c.dial(ctx, c[0].target.dial, 1)
	if err != nil {
		return err
	}
	defer one.close()
	return shareOut(ctx, one.sessions, keys, one.sessions[0].batch(), func(s session, keys []int) (err error) {
		for range tries {
			if err = s.load(keys); err == nil {
				return nil
			}
		}
		return err
	})
}

// reserve adds a member and returns its token and its id.
func (c cluster) reserve(ctx context.Context) (token, id string, err error) {
	var added struct {
		Token  string `json:"join_token"`
		Member struct {
			ID string `json:"id"`
		} `json:"member"`
	}
	err = askJSON(ctx, http.MethodPost, "http://"+c[0].addr+"/v1/cluster/members", `{"name":"newcomer"}`, &added)
	return added.Token, added.Member.ID, err
}

// term is the number of the cluster's present leadership.
func (c cluster) term(ctx context.Context) (uint64, error) {
	var status struct {
		Term uint64 `json:"term"`
	}
	err := askJSON(ctx, http.MethodGet, "http://"+c[0].addr+"/v1/status", "", &status)
	return status.Term, err
}

// admit starts a node that joins, and takes the time until it has caught up, and
// until it votes.
func (c cluster) admit(ctx context.Context, parent, token, id string) (s *server, caughtUp, votes time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinedWithin)
	defer cancel()
	t := c[0].target
	s = &server{target: t}
	if s.addr, err = freeAddr(); err != nil {
		return nil, 0, 0, err
	}
	if s.peer, err = freeAddr(); err != nil {
		return nil, 0, 0, err
	}
	if s.dir, err = os.MkdirTemp(parent, t.name+"-newcomer-"); err != nil {
		return nil, 0, 0, err
	}
	began := time.Now()
	command := t.joinCommand(filepath.Join(s.dir, "data"), member{"newcomer", s.addr, s.peer}, "http://"+c[0].addr, token)
	if s.process, err = startProcess(s.dir, command); err != nil {
		return nil, 0, 0, errors.Join(err, os.RemoveAll(s.dir))
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if caughtUp == 0 && ask(ctx, s.addr, t.ready(s.addr)) == nil {
			caughtUp = time.Since(began)
		}
		var m struct {
			State string `json:"state"`
		}
		if caughtUp != 0 && askJSON(ctx, http.MethodGet, "http://"+c[0].addr+"/v1/cluster/members/"+id, "", &m) == nil && m.State == "voter" {
			return s, caughtUp, time.Since(began), nil
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return s, 0, 0, fmt.Errorf("the node that joins: %w", s.alive())
		case <-ctx.Done():
			return s, 0, 0, fmt.Errorf("the node did not join: %w\n%s", ctx.Err(), s.logTail())
		}
	}
}

// equal compares the content of all members.
func (c cluster) equal(ctx context.Context) error {
	type content struct {
		Revision uint64 `json:"revision"`
		Hash     string `json:"hash"`
	}
	var first content
	for i, s := range c {
		var h content
		url := fmt.Sprintf("http://%s/v1/hash", s.addr)
		if i > 0 {
			url += fmt.Sprintf("?min_revision=%d", first.Revision)
		}
		if err := askJSON(ctx, http.MethodGet, url, "", &h); err != nil {
			return err
		}
		if i == 0 {
			first = h
		}
		if h != first {
			return fmt.Errorf("member %d has the content %+v, member 1 has %+v", i+1, h, first)
		}
	}
	return nil
}

// askJSON asks for something that is not measured.
func askJSON(ctx context.Context, method, url, body string, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return unexpected(method+" "+url, answer.StatusCode, got)
	}
	return json.Unmarshal(got, into)
}

// cairnJoin is the program of a node that joins a cluster.
func cairnJoin(binary string, extra []string) func(dir string, self member, url, token string) *exec.Cmd {
	return func(dir string, self member, url, token string) *exec.Cmd {
		args := []string{
			"serve", "--name", self.name, "--listen", self.addr, "--peer-listen", self.peer,
			"--join", url, "--join-token", token, "--data-dir", dir,
		}
		return exec.Command(binary, append(args, extra...)...)
	}
}
