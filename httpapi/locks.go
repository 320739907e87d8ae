package httpapi

import (
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/coordination"
)

// acquireLock answers POST /v1/locks/{name}: once, or as events while it waits.
func (x *exchange) acquireLock() {
	name := x.names(locksPath, "")[0]
	body, _ := x.readBody(maxBodyBytes)
	var c claimBody
	write := true
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			p.object("a lock", func(name string) bool {
				switch name {
				case "owner":
					c.ask.Owner = string(p.string())
				case "mode":
					write = p.oneOf(name, "write", api.ModeRead) == "write"
					c.ask.Kind.Read = !write
				case "limit":
					c.ask.Kind.Limit = int(p.uint(name, 1, coordination.MaxSlots))
				case "lock_delay_seconds":
					c.ask.Delay = time.Duration(p.millis(name, 0, maxLockDelayMillis)) * time.Millisecond
				default:
					return c.member(x, p, name)
				}
				return true
			})
			if !p.broken {
				x.checkLease("a lock", c.lease, c.ttl)
				x.checkSharing(&c.ask)
			}
		})
	}
	if x.refused() {
		return
	}
	c.ask.Name = name
	x.claim(&c, x.s.recipes.Acquire, api.EventAcquired, func(h *coordination.Holder) any { return lockOf(h) })
}

func (x *exchange) checkSharing(ask *coordination.Claim) {
	if len(ask.Owner) > maxOwnerBytes {
		x.failLimit(api.CodeInvalidArgument, maxOwnerBytes, "owner has at most %d bytes", maxOwnerBytes)
	}
	if ask.Kind.Read && ask.Kind.Limit > 0 {
		x.fail(api.CodeInvalidArgument, "mode=read excludes limit")
	}
	if ask.Delay > 0 && ask.Kind != (coordination.Kind{}) {
		x.fail(api.CodeInvalidArgument, "lock_delay_seconds is for a lock that is held alone")
	}
}

// getLock answers GET /v1/locks/{name}. A lock that nobody holds is one, too.
func (x *exchange) getLock() {
	x.recipeState(locksPath, x.s.recipes.Lock, func(s *coordination.State) any { return lockStateOf(s) })
}

func lockStateOf(s *coordination.State) api.LockState {
	answer := api.LockState{Name: s.Name, Holders: []api.Holder{}, Queue: []api.LockWaiter{}, Waiting: s.Waiting}
	for i := range s.Holders {
		answer.Holders = append(answer.Holders, holderOf(&s.Holders[i]))
	}
	for i := range s.Queue {
		w := &s.Queue[i]
		answer.Queue = append(answer.Queue, api.LockWaiter{
			Place: i + 1, Lease: w.Lease.String(), Owner: w.Owner, Mode: modeOf(w.Kind), Limit: w.Kind.Limit, Since: api.Time{Time: w.At},
		})
	}
	return answer
}

// releaseLock answers DELETE /v1/locks/{name}.
func (x *exchange) releaseLock() { x.endHolder(locksPath, x.s.recipes.Release) }
