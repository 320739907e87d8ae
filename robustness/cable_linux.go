package robustness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A cable is the wire of one node when it leads through this process, where it
// takes harm: each frame, in either direction, may be lost, come twice, or come
// late, so that others overtake it. It is what netem does, on machines whose kernel
// has none. The frames are real ones, so that it is the kernel's TCP that has to
// make up for it.
type cable struct {
	space     *Namespaces
	node      int
	harm      harm
	near, far *os.File // taps, on the node's side and on that of the others
	wg        sync.WaitGroup

	frames, lost, twice, held atomic.Int64
}

// A harm is what may happen to a frame: how likely it is to be lost, to come twice,
// and to be held back; and by how much all of them are late.
type harm struct {
	loss, twice, held float64
	delay, jitter     time.Duration
}

const (
	// heldAtLeast and heldAtMost is how long a frame is held back, for others to
	// overtake it.
	heldAtLeast, heldAtMost = 2 * time.Millisecond, 40 * time.Millisecond
	// maxFrame is more than a frame of an Ethernet has. A tap that did not ask for
	// more gets no larger ones: the kernel cuts them.
	maxFrame = 2 << 10
)

// lead leads the wire of a node through a cable until end is called: the port of
// the node moves to a bridge of its own, and frames go between that and the wire of
// all through here.
func (s *Namespaces) lead(node int, h harm, random *rand.Rand) (c *cable, err error) {
	c = &cable{space: s, node: node, harm: h}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.end())
		}
	}()
	if c.near, err = openTap("near"); err != nil {
		return c, err
	}
	if c.far, err = openTap("far"); err != nil {
		return c, err
	}
	for _, step := range [][]string{
		{"link", "add", "side", "type", "bridge"},
		{"link", "set", "side", "up"},
		{"link", "set", "near", "master", "side", "up"},
		{"link", "set", "far", "master", "wire", "up"},
		{"link", "set", s.port(node), "master", "side"},
	} {
		if err := ip(append([]string{"-n", s.hub()}, step...)...); err != nil {
			return c, err
		}
	}
	for _, way := range [][2]*os.File{{c.near, c.far}, {c.far, c.near}} {
		random := rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		c.wg.Go(func() { c.carry(way[0], way[1], random) })
	}
	return c, nil
}

// openTap makes a network device in the namespace of this process, whose frames are
// read and written here. It is gone when it is closed.
func openTap(name string) (*os.File, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("a tap: %w", err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("the tap %s: %w", name, errors.Join(err, unix.Close(fd)))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// carry takes frames one way until the cable ends.
func (c *cable) carry(from, to *os.File, random *rand.Rand) {
	buffer := make([]byte, maxFrame)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return // it is closed
		}
		c.frames.Add(1)
		copies := 1
		switch draw := random.Float64(); {
		case draw < c.harm.loss:
			c.lost.Add(1)
			continue
		case draw < c.harm.loss+c.harm.twice:
			c.twice.Add(1)
			copies = 2
		}
		for range copies {
			late := c.harm.delay
			if c.harm.jitter > 0 {
				late += time.Duration(random.Int64N(int64(2*c.harm.jitter))) - c.harm.jitter
			}
			if random.Float64() < c.harm.held {
				c.held.Add(1)
				late += heldAtLeast + time.Duration(random.Int64N(int64(heldAtMost-heldAtLeast)))
			}
			c.send(to, buffer[:n], late)
		}
	}
}

// send writes a frame, now or later. What the kernel does not take, or what comes
// after the end, is lost as it is on a wire.
func (c *cable) send(to *os.File, frame []byte, late time.Duration) {
	if late <= 0 {
		_, _ = to.Write(frame)
		return
	}
	kept := append([]byte(nil), frame...)
	c.wg.Add(1)
	time.AfterFunc(late, func() {
		defer c.wg.Done()
		_, _ = to.Write(kept)
	})
}

// end gives the node its own wire back. It returns when no frame is under way, and
// says what did not happen that was to.
func (c *cable) end() error {
	errs := []error{ip("-n", c.space.hub(), "link", "set", c.space.port(c.node), "master", "wire")}
	for _, tap := range []*os.File{c.near, c.far} {
		if tap != nil {
			errs = append(errs, tap.Close())
		}
	}
	c.wg.Wait()
	errs = append(errs, ip("-n", c.space.hub(), "link", "del", "side"))
	for what, n := range map[string]struct {
		chance float64
		count  int64
	}{
		"lost":      {c.harm.loss, c.lost.Load()},
		"doubled":   {c.harm.twice, c.twice.Load()},
		"held back": {c.harm.held, c.held.Load()},
		"carried":   {1, c.frames.Load()},
	} {
		if n.chance > 0 && n.count == 0 {
			errs = append(errs, fmt.Errorf("no frame was %s", what))
		}
	}
	return errors.Join(errs...)
}
