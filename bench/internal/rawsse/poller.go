package rawsse

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// readSize is how much is read from a connection at once.
const readSize = 256 << 10

// pollMillis is how long a poller may take to notice that it is to end.
const pollMillis = 20

// A Conn is one stream of events.
type Conn struct {
	// Tag is the caller's.
	Tag  int
	fd   int
	scan Scanner
}

// Open sends a request and waits for the first message of its answer. What
// follows it at once is handed to fn, as the poller hands over the rest.
func Open(addr string, request []byte, tag int, fn func(c *Conn, message []byte)) (*Conn, error) {
	fd, err := dial(addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{Tag: tag, fd: fd}
	if err := c.begin(request, fn); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return c, nil
}

// dial connects a socket that Go's own poller knows nothing of, so that what
// arrives is noticed once only.
func dial(addr string) (fd int, err error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil || !at.Addr().Is4() {
		return 0, fmt.Errorf("%q is no IPv4 address with a port", addr)
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	if err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	return fd, nil
}

func (c *Conn) begin(request []byte, fn func(*Conn, []byte)) error {
	for len(request) > 0 {
		n, err := unix.Write(c.fd, request)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("sending a request: %w", err)
		}
		request = request[max(n, 0):]
	}
	first := true
	buf := make([]byte, 4<<10)
	for first {
		n, err := unix.Read(c.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("waiting for the first message: %w", err)
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		err = c.scan.Scan(buf[:n], func(message []byte) {
			if !first {
				fn(c, message)
			}
			first = false
		})
		if err != nil {
			return err
		}
	}
	return unix.SetNonblock(c.fd, true)
}

// Close closes a connection that no poller has.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// A Poller reads connections by the one goroutine that calls Run. Its other
// methods may be called by others.
type Poller struct {
	epoll int
	ended atomic.Bool
	mu    sync.Mutex
	conns map[int32]*Conn
}

// NewPoller makes a poller without connections.
func NewPoller() (*Poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &Poller{epoll: epoll, conns: map[int32]*Conn{}}, nil
}

// Add hands a connection over: the poller closes it.
func (p *Poller) Add(c *Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[int32(c.fd)] = c
	err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(c.fd)})
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// Stop ends Run.
func (p *Poller) Stop() { p.ended.Store(true) }

// Run reads until Stop, and closes all connections then. It calls message for
// each message and ended for each connection that has ended, with the reason. It
// calls ready before the messages of each read.
func (p *Poller) Run(ready func(), message func(*Conn, []byte), ended func(*Conn, error)) error {
	defer p.close()
	events := make([]unix.EpollEvent, 256)
	buf := make([]byte, readSize)
	for !p.ended.Load() {
		n, err := unix.EpollWait(p.epoll, events, pollMillis)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
		for _, e := range events[:n] {
			p.mu.Lock()
			c := p.conns[e.Fd]
			p.mu.Unlock()
			if err := c.read(buf, ready, message); err != nil {
				p.drop(c)
				ended(c, err)
			}
		}
	}
	return nil
}

func (c *Conn) read(buf []byte, ready func(), message func(*Conn, []byte)) error {
	n, err := unix.Read(c.fd, buf)
	switch {
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return err
	case n == 0:
		return io.ErrUnexpectedEOF
	}
	ready()
	return c.scan.Scan(buf[:n], func(m []byte) { message(c, m) })
}

func (p *Poller) drop(c *Conn) {
	p.mu.Lock()
	delete(p.conns, int32(c.fd))
	p.mu.Unlock()
	_ = unix.Close(c.fd) // which also takes it out of the epoll
}

func (p *Poller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for fd := range p.conns {
		_ = unix.Close(int(fd))
	}
	p.conns = nil
	_ = unix.Close(p.epoll)
}
