package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/coordination"
	"github.com/cairnkv/cairn/internal/sse"
	"github.com/cairnkv/cairn/kv"
)

// campaign answers POST /v1/elections/{name}: once, or as events while it waits.
func (x *exchange) campaign() {
	name := x.names(electionsPath, "")[0]
	events := negotiate(x.r.Header["Accept"], api.TypeJSON, sse.ContentType) == wantsSecond
	body, _ := x.readBody(maxBodyBytes)
	var c claimBody
	wait := false
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			var value jsonBytes
			p.object("a campaign", func(name string) bool {
				wait = wait || name == "wait_seconds"
				return value.member(p, name, "value") || c.member(x, p, name)
			})
			if !p.broken {
				x.checkLease("a campaign", c.lease, c.ttl)
				c.ask.Value, c.ask.ContentType = x.proclaimed(&value)
			}
		})
	}
	if x.refused() {
		return
	}
	c.ask.Name = name
	if events && !wait {
		c.ask.Wait = maxWaitMillis * time.Millisecond
	}
	ctx, stop := x.waiting(c.ask.Wait)
	defer stop()
	if events {
		x.campaignInEvents(ctx, &c.ask)
		return
	}
	leader, err := x.s.recipes.Campaign(ctx, c.ask)
	if err != nil {
		x.refuseRecipe(err)
		return
	}
	x.setLease(leader.Lease)
	x.sendValue(200, max(leader.Token, x.revision()), leaderOf(&leader))
}

// proclaimed is the value that a leader proclaims, and its content type.
func (x *exchange) proclaimed(value *jsonBytes) ([]byte, string) {
	if len(value.value) > kv.MaxValueBytes {
		x.failLimit(api.CodeValueTooLarge, kv.MaxValueBytes, "a value has at most %d bytes, this one has %d", kv.MaxValueBytes, len(value.value))
	}
	if !utf8.Valid(value.value) {
		return value.value, ""
	}
	return value.value, api.TypeText
}

// campaignInEvents tells how many wait before the candidate, and at last that it is
// elected or why not.
func (x *exchange) campaignInEvents(ctx context.Context, ask *coordination.Claim) {
	s := x.openElection()
	told := -1
	ask.Progress = func(before int) {
		if before == told {
			s.quiet()
			return
		}
		told = before
		s.tell("", api.EventWaiting, api.WaitingBehind{Before: before})
	}
	leader, err := x.s.recipes.Campaign(ctx, *ask)
	if err != nil {
		x.fault = recipeFault(err)
		info, _ := x.fault.code.Info()
		s.tell("", api.EventError, json.RawMessage(appendProblem(nil, &x.fault, info, x.id())))
	} else {
		s.tell(strconv.FormatUint(leader.Token, 10), api.EventElected, leaderOf(&leader))
	}
	s.end()
}

func leaderOf(h *coordination.Holder) api.Leader {
	l := api.Leader{
		Name: h.Name, Token: h.Token, Fence: h.Fence, Lease: h.Lease.String(), Value: h.Value, ModRevision: h.ModRevision,
	}
	if l.Value == nil {
		l.Value = []byte{}
	}
	if h.At.UnixMilli() > 0 {
		l.ModifiedAt = h.At
	}
	return l
}

// getElection answers GET /v1/elections/{name}.
func (x *exchange) getElection() {
	name := x.names(electionsPath, "")[0]
	mode := x.readMode()
	if x.refused() {
		return
	}
	v := x.view(&mode)
	if v == nil {
		return
	}
	defer v.Close()
	s, err := x.s.recipes.Election(x.r.Context(), v, name)
	if err != nil {
		x.refuseRead(err)
		return
	}
	answer := api.ElectionState{Name: name, Candidates: []api.Candidate{}, Waiting: s.Waiting}
	if len(s.Holders) > 0 {
		leader := leaderOf(&s.Holders[0])
		answer.Leader = &leader
	}
	for i := range s.Queue {
		w := &s.Queue[i]
		answer.Candidates = append(answer.Candidates, api.Candidate{Place: i + 1, Lease: w.Lease.String(), Since: api.Time{Time: w.At}})
	}
	x.sendValue(200, v.Revision(), answer)
}

// proclaim answers PUT /v1/elections/{name}.
func (x *exchange) proclaim() {
	name := x.names(electionsPath, "")[0]
	body, _ := x.readBody(maxBodyBytes)
	var token uint64
	var value jsonBytes
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			p.object("a proclamation", func(name string) bool {
				if name == "token" {
					token = p.uint(name, 1, maxRevision)
					return true
				}
				return value.member(p, name, "value")
			})
			if !p.broken && (token == 0 || !value.given) {
				x.fail(api.CodeInvalidArgument, "a proclamation needs token and value")
			}
		})
	}
	text, contentType := x.proclaimed(&value)
	if x.refused() {
		return
	}
	revision, err := x.s.recipes.Proclaim(x.r.Context(), name, token, text, contentType)
	if err != nil {
		x.refuseRecipe(err)
		return
	}
	x.sendValue(200, revision, api.Proclaimed{Revision: revision})
}

// resign answers DELETE /v1/elections/{name}.
func (x *exchange) resign() { x.endHolder(electionsPath, x.s.recipes.Resign) }

// endHolder ends the holder of a lock or an election by its token.
func (x *exchange) endHolder(prefix string, end func(ctx context.Context, name string, token uint64) (uint64, error)) {
	name := x.names(prefix, "")[0]
	token := x.tokenParam()
	if x.refused() {
		return
	}
	revision, err := end(x.r.Context(), name, token)
	if err != nil {
		x.refuseRecipe(err)
		return
	}
	x.sendValue(200, revision, api.DeleteResult{Revision: revision, Deleted: 1})
}

// observe answers GET /v1/elections/{name}/observe: who leads, at first and after
// each change. A client that comes back with Last-Event-ID is not told again what
// it knows.
func (x *exchange) observe() {
	name := x.names(electionsPath, "/observe")[0]
	known := x.lastEventID()
	if x.refused() {
		return
	}
	if !x.await(&readMode{}) {
		return
	}
	ctx, stop := x.waiting(maxWaitMillis)
	defer stop()
	s := x.openElection()
	err := x.s.recipes.Observe(ctx, name, pulse, func(revision uint64, leader *coordination.Holder, changed bool) error {
		switch {
		case !changed, leader != nil && leader.ModRevision <= known:
			s.quiet()
		case leader == nil:
			s.tell(strconv.FormatUint(revision, 10), api.EventVacant, api.Vacancy{Name: name})
		default:
			s.tell(strconv.FormatUint(leader.ModRevision, 10), api.EventLeader, leaderOf(leader))
		}
		return s.err
	})
	if s.err == nil {
		s.err = err
	}
	if errors.Is(err, &kv.Error{Code: kv.ShuttingDown}) {
		s.err = nil
		s.tell("", api.EventDraining, api.Vacancy{Name: name})
	}
	s.end()
}

// lastEventID is the revision that a client of a stream has seen, or 0.
func (x *exchange) lastEventID() uint64 {
	given := x.r.Header["Last-Event-Id"]
	if len(given) == 0 {
		return 0
	}
	n, ok := parseUint(given[0])
	if !ok || len(given) > 1 || n > maxRevision {
		x.fail(api.CodeInvalidArgument, "Last-Event-ID is %.40q: want the id of an event of this stream", given[0])
	}
	return n
}

// An electionStream is the stream of a candidate or of an observer.
type electionStream struct {
	*stream
	// told is when something was written last, err why nothing more is.
	told time.Time
	err  error
}

func (x *exchange) openElection() *electionStream {
	s, err := x.openStream(x.revision())
	return &electionStream{stream: s, told: time.Now(), err: err}
}

// tell writes an event.
func (s *electionStream) tell(id, event string, v any) {
	data, err := json.Marshal(v)
	if s.err == nil {
		s.err = err
	}
	if s.err == nil {
		s.told, s.err = time.Now(), s.event(id, event, data)
	}
}

// quiet writes a comment if nothing was written for a while.
func (s *electionStream) quiet() {
	if s.err == nil && time.Since(s.told) >= pulse-time.Second {
		s.told, s.err = time.Now(), s.comment("still here")
	}
}

// end breaks off what must not look as if it had ended by itself.
func (s *electionStream) end() {
	if s.err != nil {
		panic(http.ErrAbortHandler)
	}
}
