package robustness

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A wireBreak is one way for the wire to fail.
type wireBreak func(s *Namespaces, random *rand.Rand) (*broken, error)

// A broken wire, and what is promised of the nodes on it.
type broken struct {
	what string
	mend func() error
	// serve are nodes of a majority that can speak to each other, within what time writes
	// go on there; nothing is promised if it is zero.
	serve  []int
	within time.Duration
	// alone is a node without a majority that clients reach, cut one that they don't reach;
	// -1 if there is none.
	alone, cut int
	// met, if not nil, counts what shows that somebody met the break. idle says that there
	// may be nobody: two followers have nothing to say to each other.
	met  func() (int, error)
	idle bool
	// steady says that it is nothing to elect another leader for.
	steady bool
}

// With a majority that can speak, a leader is found within three election timeouts, or ten
// where some of its messages are lost in silence.
const (
	majorityWithin = leaderLossWithin
	silentWithin   = 10 * time.Second
)

// cutFor is how long a wire stays broken: longer than an election takes, and
// sometimes longer than a write is tried.
func cutFor(random *rand.Rand) { moment(random, 2*time.Second, 7*time.Second) }

// sometimesLonger has it stay broken so long, now and then, that TCP by itself would try
// again only many seconds after it is whole.
func sometimesLonger(random *rand.Rand) {
	if random.IntN(6) == 0 {
		moment(random, 12*time.Second, 15*time.Second)
	}
}

// Breaking breaks the wire, lets time pass, and mends it. Whether anybody meets that depends
// on what else happens.
func Breaking(s *Namespaces, breaks wireBreak) Fault {
	return func(c *Cluster, random *rand.Rand, _ int) error {
		return whileBroken(s, c, random, breaks, func(b *broken) error {
			b.idle = true
			return nil
		})
	}
}

// OnTheWire breaks the wire, looks whether the nodes keep what is promised, lets time pass,
// and mends it.
func OnTheWire(s *Namespaces, breaks wireBreak) Fault {
	return func(c *Cluster, random *rand.Rand, _ int) error {
		h := NewHTTP()
		defer h.Close()
		_, before, err := leaderAndTerm(c, h)
		if err != nil {
			return err
		}
		var b *broken
		var during uint64
		if err := whileBroken(s, c, random, breaks, func(now *broken) (err error) {
			b, during = now, before
			sometimesLonger(random)
			if b.within == 0 {
				return nil
			}
			if err := goesOn(c, h, b); err != nil {
				return err
			}
			var majority []*Node
			for _, i := range b.serve {
				majority = append(majority, c.Nodes[i])
			}
			during, err = termAmong(majority, h)
			return err
		}); err != nil {
			return err
		}
		if err := c.AwaitReady(c.Nodes); err != nil {
			return err
		}
		_, after, err := leaderAndTerm(c, h)
		switch {
		case err != nil:
			return err
		case b.steady && after != before:
			return fmt.Errorf("%s: the term went from %d to %d", b.what, before, after)
		case b.within > 0 && after > during+1: // who comes back may not push the others
			return fmt.Errorf("%s: the term went from %d to %d when the wire was whole again", b.what, during, after)
		}
		return nil
	}
}

// whileBroken breaks the wire, does something, lets time pass, and mends it.
func whileBroken(s *Namespaces, c *Cluster, random *rand.Rand, breaks wireBreak, do func(*broken) error) error {
	b, err := breaks(s, random)
	if err != nil {
		return err
	}
	c.Note("%s", b.what)
	before, counted := b.meetings()
	err = do(b)
	cutFor(random)
	after, countedAgain := b.meetings()
	err = errors.Join(err, counted, countedAgain, b.mend())
	c.Note("the wire is whole; %d have met it", after-before)
	if err == nil && b.met != nil && !b.idle && after == before {
		err = fmt.Errorf("%s, and nobody met that", b.what)
	}
	return err
}

func (b *broken) meetings() (int, error) {
	if b.met == nil {
		return 0, nil
	}
	return b.met()
}

// goesOn asks a majority for something that goes through its log, until it is done, and a
// node that is alone what it still does.
func goesOn(c *Cluster, h *HTTP, b *broken) error {
	began := time.Now()
	disk := WatchDisk(c.Evidence.Path("wire.sync"))
	_, err := retry(func() (struct{}, error) {
		// All at once: one that knows no leader looks for it for a while. And a write that
		// changes nothing: the histories are those of the traffic.
		asked := make(chan error, len(b.serve))
		for _, i := range b.serve {
			go func() { // ends with its request, which has a limit
				a := h.Do(c.Nodes[i], Request{Method: http.MethodDelete, Path: "/v1/kv/nothing"})
				asked <- a.explain()
			}()
		}
		var errs []error
		for range b.serve {
			err := <-asked
			if err == nil {
				return struct{}{}, nil
			}
			errs = append(errs, err)
		}
		return struct{}{}, errors.Join(errs...)
	})
	took := time.Since(began)
	err = errors.Join(err, disk.End())
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", b.what, err)
	case took > b.within+disk.Stood():
		return fmt.Errorf("%s: a majority took %v to go on, in which the disk stood still for %v", b.what, took, disk.Stood())
	}
	c.Note("a majority went on after %v", took.Round(time.Millisecond))
	if b.cut >= 0 {
		if err := isCut(c.Nodes[b.cut]); err != nil {
			return fmt.Errorf("%s: %w", b.what, err)
		}
	}
	if b.alone < 0 {
		return nil
	}
	return c.isAlone(h, c.Nodes[b.alone])
}

// isCut wants that clients don't reach a node.
func isCut(n *Node) error {
	h := NewHTTP()
	defer h.Close()
	h.client.Timeout = time.Second
	if a := h.Do(n, Request{Method: http.MethodGet, Path: "/livez"}); a.Status != 0 {
		return fmt.Errorf("%s still answers, with %d", n.Name, a.Status)
	}
	return nil
}

// isAlone waits until a node without a majority says so, and holds what it answers then
// against what is promised.
func (c *Cluster) isAlone(h *HTTP, n *Node) error {
	if _, err := retry(func() (struct{}, error) {
		if got, _ := status(h, n, http.MethodGet, "/readyz", ""); got != http.StatusServiceUnavailable {
			return struct{}{}, fmt.Errorf("%s has no majority, and /readyz is %d", n.Name, got)
		}
		return struct{}{}, nil
	}); err != nil {
		return err
	}
	for _, q := range []struct {
		method, path string
		want         []int
	}{
		{http.MethodGet, "/v1/kv?prefix=k/&consistency=stale", []int{200}},
		{http.MethodGet, "/v1/kv?prefix=k/", []int{503}},
		{http.MethodDelete, "/v1/kv/nothing", []int{503, 504}},
	} {
		if got, code := status(h, n, q.method, q.path, ""); !slices.Contains(q.want, got) {
			return fmt.Errorf("%s has no majority, and answers %d %s to %s %s, want one of %d", n.Name, got, code, q.method, q.path, q.want)
		}
	}
	c.Note("%s is alone, and says so", n.Name)
	return nil
}

// theOthers are all nodes but one.
func (s *Namespaces) theOthers(i int) (rest []int) {
	for other := range s.size {
		if other != i {
			rest = append(rest, other)
		}
	}
	return rest
}

// repeated counts what a node has sent again since nobody confirmed it.
func (s *Namespaces) repeated(i int) func() (int, error) {
	return func() (int, error) {
		out, err := s.read(i, "/proc/net/snmp")
		if err != nil {
			return 0, err
		}
		var names []string
		for line := range strings.Lines(out) {
			fields := strings.Fields(line)
			switch {
			case len(fields) == 0 || fields[0] != "Tcp:":
			case names == nil:
				names = fields
			default:
				at := slices.Index(names, "RetransSegs")
				if at < 0 || at >= len(fields) {
					return 0, fmt.Errorf("no count of repeated segments in %q", names)
				}
				return strconv.Atoi(fields[at])
			}
		}
		return 0, errors.New("no counts of TCP")
	}
}

// undo runs what mends several breaks, all of them whatever becomes of one.
func undo(mends []func() error) func() error {
	return func() error {
		var errs []error
		for _, mend := range mends {
			errs = append(errs, mend())
		}
		return errors.Join(errs...)
	}
}

// unplug takes a node off the wire, for the others and for the clients (F-04).
func unplug(s *Namespaces, random *rand.Rand) (*broken, error) {
	i := random.IntN(s.size)
	down := append(s.ip(i), "link", "set", "eth0", "down")
	before, err := s.received(i)
	if err != nil {
		return nil, err
	}
	if err := ip(down...); err != nil {
		return nil, err
	}
	began, err := s.received(i)
	if err != nil {
		return nil, err
	}
	mend := func() error {
		got, err := s.received(i)
		if err == nil && got != began {
			err = fmt.Errorf("n%d was unplugged and still received: %s packets after %s (%s before)", i+1, got, began, before)
		}
		return errors.Join(err, ip(append(s.ip(i), "link", "set", "eth0", "up")...))
	}
	return &broken{what: fmt.Sprintf("n%d is unplugged", i+1), mend: mend, serve: s.theOthers(i), within: majorityWithin, alone: -1, cut: i}, nil
}

// silence has one node send what it says to another one nowhere (F-05).
func (s *Namespaces) silence(from, to int) (func() error, error) {
	set := append(s.ip(from), "neigh", "replace", s.address(to), "lladdr", wrongNeighbour, "dev", "eth0", "nud", "permanent")
	return func() error { return ip(append(s.ip(from), "neigh", "del", s.address(to), "dev", "eth0")...) }, ip(set...)
}

// refuse has one node fail at once when it sends to an address (F-06).
func (s *Namespaces) refuse(from int, to string) (func() error, error) {
	return func() error { return ip(append(s.ip(from), "route", "del", "blackhole", to+"/32")...) },
		ip(append(s.ip(from), "route", "replace", "blackhole", to+"/32")...)
}

// oneWay lets a node hear the others and say nothing to them, or to one of them.
func oneWay(s *Namespaces, random *rand.Rand) (*broken, error) {
	order := random.Perm(s.size)
	from, to := order[0], order[1:1+1+random.IntN(2)]
	var mends []func() error
	for _, other := range to {
		mend, err := s.silence(from, other)
		mends = append(mends, mend)
		if err != nil {
			return nil, errors.Join(err, undo(mends)())
		}
	}
	return &broken{
		what: fmt.Sprintf("what n%d says to %d others is lost", from+1, len(to)), mend: undo(mends),
		serve: s.theOthers(from), within: silentWithin, alone: -1, cut: -1, met: s.repeated(from), idle: len(to) == 1,
	}, nil
}

// fastFail has the network of a node refuse to send to the others.
func fastFail(s *Namespaces, random *rand.Rand) (*broken, error) {
	return refuseAll(s, random.IntN(s.size))
}

// refuseAll has the network of one node refuse to send to the others.
func refuseAll(s *Namespaces, i int) (*broken, error) {
	var mends []func() error
	for _, other := range s.theOthers(i) {
		mend, err := s.refuse(i, s.address(other))
		mends = append(mends, mend)
		if err != nil {
			return nil, errors.Join(err, undo(mends)())
		}
	}
	return &broken{
		what: fmt.Sprintf("n%d can't send to the others", i+1), mend: undo(mends),
		serve: s.theOthers(i), within: majorityWithin, alone: i, cut: -1,
	}, nil
}

// What a node may use that can't send to the others: a part of a processor, and lines of its
// log, some at once and some each second.
const (
	mostAlone        = 0.2
	mostLines        = 20
	mostLinesASecond = 5
)

// FastFail is fastFail (F-06). The node must take it quietly: who fails at once must not
// try again at once.
func FastFail(s *Namespaces) Fault {
	return func(c *Cluster, random *rand.Rand, round int) error {
		n := c.Nodes[random.IntN(len(c.Nodes))]
		before, err := useOf(n)
		if err != nil {
			return err
		}
		if err := Breaking(s, func(s *Namespaces, _ *rand.Rand) (*broken, error) {
			return refuseAll(s, n.Index)
		})(c, random, round); err != nil {
			return err
		}
		after, err := useOf(n)
		if err != nil {
			return err
		}
		took := after.at.Sub(before.at).Seconds()
		part, said := (after.processor-before.processor).Seconds()/took, after.lines-before.lines
		c.Note("alone, %s used %.2f of a processor and logged %d lines", n.Name, part, said)
		if part > mostAlone || said > mostLines+int(mostLinesASecond*took) {
			return fmt.Errorf("alone for %.1f s, %s used %.2f of a processor and logged %d lines", took, n.Name, part, said)
		}
		return nil
	}
}

// A use is what a node has used up to a moment.
type use struct {
	at        time.Time
	processor time.Duration
	lines     int // of its log
}

func useOf(n *Node) (use, error) {
	processor, err := processorTime(n)
	if err != nil {
		return use{}, err
	}
	text, err := os.ReadFile(n.Log)
	return use{time.Now(), processor, bytes.Count(text, []byte("\n"))}, err
}

// bridge cuts two nodes off from each other; the third one sees both (F-07).
func bridge(s *Namespaces, random *rand.Rand) (*broken, error) {
	order := random.Perm(s.size)
	a, b := order[0], order[1]
	var mends []func() error
	for _, way := range [][2]int{{a, b}, {b, a}} {
		mend, err := s.refuse(way[0], s.address(way[1]))
		mends = append(mends, mend)
		if err != nil {
			return nil, errors.Join(err, undo(mends)())
		}
	}
	return &broken{
		what: fmt.Sprintf("n%d and n%d don't see each other", a+1, b+1), mend: undo(mends),
		serve: order[2:], within: silentWithin, alone: -1, cut: -1,
	}, nil
}

// ring lets each node hear and be heard by the two beside it alone. Of five that is a
// majority for each of them, and another one for each (F-07).
func ring(s *Namespaces, random *rand.Rand) (*broken, error) {
	order := random.Perm(s.size)
	var mends []func() error
	for at, i := range order {
		for far := 2; far <= s.size-2; far++ {
			mend, err := s.refuse(i, s.address(order[(at+far)%s.size]))
			mends = append(mends, mend)
			if err != nil {
				return nil, errors.Join(err, undo(mends)())
			}
		}
	}
	return &broken{
		what: fmt.Sprintf("each node sees the two beside it, in the order %v", order), mend: undo(mends),
		serve: order, within: silentWithin, alone: -1, cut: -1,
	}, nil
}

// clientsCut takes one node from the clients and leaves it to the others (F-07).
func clientsCut(s *Namespaces, random *rand.Rand) (*broken, error) {
	i := random.IntN(s.size)
	mend, err := s.refuse(i, hubAddress)
	return &broken{
		what: fmt.Sprintf("n%d can't answer the clients", i+1), mend: mend,
		serve: s.theOthers(i), within: majorityWithin, alone: -1, cut: i, steady: true,
	}, err
}

// narrow gives what a node sends little room and makes it wait (F-08).
func narrow(s *Namespaces, random *rand.Rand) (*broken, error) {
	i := random.IntN(s.size)
	shape := []string{"-n", s.name(i), "qdisc"}
	rate := []string{"256kbit", "1mbit", "4mbit"}[random.IntN(3)]
	err := command("tc", append(shape, "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms")...)
	return &broken{
		what:  fmt.Sprintf("what n%d sends goes at %s", i+1, rate),
		mend:  func() error { return command("tc", append(shape, "del", "dev", "eth0", "root")...) },
		alone: -1, cut: -1, met: s.shaped(i),
	}, err
}

// shaped counts the bytes that have left a node through a line that is narrow.
func (s *Namespaces) shaped(i int) func() (int, error) {
	return func() (int, error) {
		out, err := exec.Command("tc", "-s", "-n", s.name(i), "qdisc", "show", "dev", "eth0").Output()
		if err != nil {
			return 0, err
		}
		_, sent, _ := strings.Cut(string(out), "Sent ")
		number, _, _ := strings.Cut(sent, " ")
		return strconv.Atoi(number)
	}
}

// through leads what a node sends and receives through a cable that does it harm
// (F-08).
func through(invent func(random *rand.Rand) harm, steady bool) wireBreak {
	return func(s *Namespaces, random *rand.Rand) (*broken, error) {
		h := invent(random)
		c, err := s.lead(random.IntN(s.size), h, random)
		if err != nil {
			return nil, err
		}
		return &broken{what: fmt.Sprintf("the wire of n%d is bad: %+v", c.node+1, h), mend: c.end, alone: -1, cut: -1, steady: steady}, nil
	}
}

var (
	lossy    = through(func(random *rand.Rand) harm { return harm{loss: []float64{.02, .1, .3}[random.IntN(3)]} }, false)
	reorders = through(func(random *rand.Rand) harm { return harm{held: []float64{.05, .25, .5}[random.IntN(3)]} }, false)
	doubles  = through(func(random *rand.Rand) harm { return harm{twice: []float64{.1, .5, 1}[random.IntN(3)]} }, false)
	delays   = through(func(*rand.Rand) harm { return harm{delay: 75 * time.Millisecond, jitter: 50 * time.Millisecond} }, true)
	badWire  = through(func(random *rand.Rand) harm {
		return harm{
			loss: .1 * random.Float64(), twice: .2 * random.Float64(), held: .2 * random.Float64(),
			delay: 30 * time.Millisecond, jitter: 30 * time.Millisecond,
		}
	}, false)
)
