package raftsm

import (
	"errors"
	"reflect"
	"sync"
	"time"
	"unsafe"

	circuit "github.com/lni/goutils/netutil/rubyist/circuitbreaker"

	"github.com/lni/dragonboat/v4"
)

// reopenAfter is how long after its last failure the way to a peer is open again in any
// case. Dragonboat itself tries again after 1.5 s at the most.
const reopenAfter = 3 * time.Second

// breakers mends Dragonboat's circuit breakers. Each bars the way to a peer where
// something could not be sent, until a second or so has passed since then by the wall
// clock. Where that is set back meanwhile, by as much as an hour or a time zone, nothing
// is sent to the peer for as long: a member that booted with a clock ahead, before the
// others did, would hear them and never answer. So a bar that is older than reopenAfter,
// by a clock that only goes forward, is lifted here.
type breakers struct {
	mu sync.Mutex
	of func(address string) *circuit.Breaker // nil until there are some
	// pending has a timer for each address that could not be reached lately; nil once
	// this is closed.
	pending map[string]*time.Timer
}

// find finds the breakers of a host. Nothing that is exported leads to them.
func (b *breakers) find(nh *dragonboat.NodeHost) error {
	field := reflect.ValueOf(nh).Elem().FieldByName("transport")
	if !field.IsValid() {
		return errors.New("this Dragonboat keeps its transport elsewhere")
	}
	value := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem().Interface()
	transport, ok := value.(interface {
		GetCircuitBreaker(address string) *circuit.Breaker
	})
	if !ok {
		return errors.New("this Dragonboat has other circuit breakers")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.of = transport.GetCircuitBreaker
	return nil
}

// failed is told that something could not be sent to an address.
func (b *breakers) failed(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch timer := b.pending[address]; {
	case b.pending == nil:
	case timer != nil:
		timer.Reset(reopenAfter)
	default:
		b.pending[address] = time.AfterFunc(reopenAfter, func() { b.reopen(address) })
	}
}

// reopen lifts the bar of an address to which nothing has failed for long.
func (b *breakers) reopen(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pending == nil || b.of == nil {
		return
	}
	delete(b.pending, address)
	if bar := b.of(address); bar.Tripped() {
		bar.Reset()
	}
}

// close ends the timers.
func (b *breakers) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, timer := range b.pending {
		timer.Stop()
	}
	b.pending = nil
}
