package httpapi

import (
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/coordination"
	"github.com/cairnkv/cairn/kv"
)

// campaign answers POST /v1/elections/{name}: once, or as events while it waits.
func (x *exchange) campaign() {
	name := x.names(electionsPath, "")[0]
	body, _ := x.readBody(maxBodyBytes)
	var c claimBody
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			var value jsonBytes
			p.object("a campaign", func(name string) bool {
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
	x.claim(&c, x.s.recipes.Campaign, api.EventElected, func(h *coordination.Holder) any { return leaderOf(h) })
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
	x.recipeState(electionsPath, x.s.recipes.Election, func(s *coordination.State) any { return electionStateOf(s) })
}

func electionStateOf(s *coordination.State) api.ElectionState {
	answer := api.ElectionState{Name: s.Name, Candidates: []api.Candidate{}, Waiting: s.Waiting}
	if len(s.Holders) > 0 {
		leader := leaderOf(&s.Holders[0])
		answer.Leader = &leader
	}
	for i := range s.Queue {
		w := &s.Queue[i]
		answer.Candidates = append(answer.Candidates, api.Candidate{Place: i + 1, Lease: w.Lease.String(), Since: api.Time{Time: w.At}})
	}
	return answer
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
					token = p.uint(name, 1, kv.MaxRevision)
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

// observeTick is how often a stream that tells nothing looks whether it should say
// that it is there, or that its node is out of touch.
const observeTick = 5 * time.Second

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
	ctx, there, stop := x.waiting(maxWaitMillis * time.Millisecond)
	defer stop()
	s := x.openRecipe()
	err := x.s.recipes.Observe(ctx, name, min(observeTick, x.s.doubtAfter/2), func(revision uint64, leader *coordination.Holder, changed bool) error {
		switch {
		case !there():
			return errPeerGone
		case !changed, leader != nil && leader.ModRevision == known: // an older one is that of a restored cluster
			if event := s.touch.look(x.s.cfg.Store.Ready() == nil, x.s.doubtAfter); event != "" {
				s.tell("", event, api.Vacancy{Name: name})
			}
			s.quiet()
		case leader == nil:
			s.tell(strconv.FormatUint(revision, 10), api.EventVacant, api.Vacancy{Name: name})
		default:
			return x.tellLeader(s, leader)
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

// tellLeader tells an observer who leads. What the leader proclaims, and the text of it
// twice, are held while the observer takes it; where there is no room for that the stream
// breaks off, and the observer comes again.
func (x *exchange) tellLeader(s *recipeStream, leader *coordination.Holder) error {
	size := len(leader.Value) + eventBytes(leader.Value)
	if !x.reserve(size) {
		x.s.admission.shed[shedMemory].Inc()
		return errNoRoom
	}
	defer x.giveBack(size)
	s.tell(strconv.FormatUint(leader.ModRevision, 10), api.EventLeader, leaderOf(leader))
	return s.err
}

// errNoRoom ends a stream that has more to say than there is memory for.
var errNoRoom = errors.New("large answers take all the memory that there is for them")

// lastEventID is the revision that a client of a stream has seen, or 0.
func (x *exchange) lastEventID() uint64 {
	given := x.r.Header["Last-Event-Id"]
	if len(given) == 0 {
		return 0
	}
	n, ok := parseUint(given[0])
	if !ok || len(given) > 1 || n > kv.MaxRevision {
		x.fail(api.CodeInvalidArgument, "Last-Event-ID is %.40q: want the id of an event of this stream", given[0])
	}
	return n
}
