package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/cairnkv/cairn/bench/internal/rawhttp"
)

const (
	readyWithin = 60 * time.Second // a server that has not answered by then is broken
	stopWithin  = 30 * time.Second // a server that has not ended by then is killed
	pollEvery   = 2 * time.Millisecond
)

// A process is a server that this program has started, and the only thing that
// it ever sends a signal to.
type process struct {
	cmd     *exec.Cmd
	logPath string
	ended   chan struct{} // closed when the process has ended; err is set before
	err     error
}

// startProcess runs a command whose output goes to a file beside its data.
func startProcess(dir string, cmd *exec.Cmd) (*process, error) {
	logPath := filepath.Join(dir, "log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: cmd, logPath: logPath, ended: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		// A Ctrl-C in the terminal must not reach the server: it is stopped in
		// order. Should this program be killed, the kernel kills the server.
		Setpgid:   true,
		Pdeathsig: syscall.SIGKILL,
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// alive is an error, with the last that the process said, if it has ended.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("server ended: %v\n%s", p.err, p.logTail())
	default:
		return nil
	}
}

// stop asks the process to end, waits, and insists if it must.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended already
	timeout := time.NewTimer(stopWithin)
	defer timeout.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timeout.C:
		p.kill()
		return fmt.Errorf("process did not end within %v and was killed", stopWithin)
	}
}

// kill ends the process as a crash would, without a word.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.ended
}

// waitFor sends a request again and again, each time over a new connection,
// until it is answered with 200.
func (p *process) waitFor(ctx context.Context, addr string, request []byte) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	last := errors.New("no attempt")
	for {
		select {
		case <-p.ended:
			return p.alive()
		case <-ctx.Done():
			return fmt.Errorf("server is not ready: %w: %v\n%s", ctx.Err(), last, p.logTail())
		case <-ticker.C:
			if last = ask(ctx, addr, request); last == nil {
				return nil
			}
		}
	}
}

// ask is one attempt of waitFor.
func ask(ctx context.Context, addr string, request []byte) error {
	conn, err := rawhttp.Dial(addr, dialTimeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer, err := conn.Do(request)
	if err == nil && answer.Status != 200 {
		err = unexpected("ready", answer.Status, answer.Body)
	}
	return err
}

// logTail is the end of what the process has said, for an error message.
func (p *process) logTail() []byte {
	const shown = 2000
	log, err := os.ReadFile(p.logPath)
	if err != nil {
		return nil
	}
	return log[max(0, len(log)-shown):]
}

// The ports of servers are below those from which the kernel takes the ports of
// outgoing connections: one of these could have it before the server is up.
const lowestPort, highestPort = 10_000, 32_000

// givenAddrs are the addresses that freeAddr has given.
var givenAddrs sync.Map

// freeAddr is a loopback address on which nobody listens at the moment, and which it
// has not given before: the two of a server must differ. It asks by a connection: a
// listener that is closed lives on for a moment in a server that is just being forked.
func freeAddr() (string, error) {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", lowestPort+rand.IntN(highestPort-lowestPort))
		if _, given := givenAddrs.LoadOrStore(addr, true); given {
			continue
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return addr, nil
		}
		conn.Close()
	}
	return "", errors.New("no free port")
}
