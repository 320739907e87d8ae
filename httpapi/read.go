package httpapi

import (
	"context"
	"time"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// A readMode says how new the state must be that a read sees, and at which
// revision it is read.
type readMode struct {
	stale        bool
	minRevision  uint64
	maxStaleness time.Duration
	// revision is the revision that is read, or 0 for the newest. With cursor it
	// is the one of the list that is continued.
	revision uint64
	cursor   bool
	// weaker names what the read was, if it was not linearizable.
	weaker []string
}

var (
	valueStale        = []string{"stale"}
	valueMinRevision  = []string{"min-revision"}
	valueMaxStaleness = []string{"max-staleness"}
)

// readModeParams are the parameters of every read.
var readModeParams = params(pConsistency, pMinRevision, pMaxStaleness)

// maxStaleness is the longest max_staleness, a year: beyond it a client means
// consistency=stale.
const maxStaleness = 365 * 24 * 3600 * 1000

func (x *exchange) readMode() (m readMode) {
	if x.q.present == 0 {
		return m
	}
	consistency := x.wordParam(pConsistency, "", "linearizable", "stale")
	m.stale = consistency == "stale"
	m.minRevision = x.uintParam(pMinRevision, 1, kv.MaxRevision)
	m.maxStaleness = time.Duration(x.durationParam(pMaxStaleness, 1, maxStaleness)) * time.Millisecond
	m.revision = x.uintParam(pRevision, 1, kv.MaxRevision)
	if consistency == "linearizable" && (m.minRevision != 0 || m.maxStaleness != 0) {
		x.fail(api.CodeInvalidArgument, "consistency=linearizable excludes min_revision and max_staleness")
	}
	switch {
	case m.maxStaleness != 0:
		m.weaker = valueMaxStaleness
	case m.minRevision != 0:
		m.weaker = valueMinRevision
	case m.stale:
		m.weaker = valueStale
	}
	return m
}

// await waits until the state of this node is new enough. It returns false when
// it has answered why not.
func (x *exchange) await(m *readMode) bool {
	if m.weaker != nil {
		x.w.Header()[api.HeaderConsistency] = m.weaker
	}
	if err := x.awaitMode(m); err != nil {
		x.refuseRead(err)
		return false
	}
	return true
}

func (x *exchange) awaitMode(m *readMode) error {
	store, ctx := x.s.cfg.Store, x.r.Context()
	if m.revision != 0 {
		if err := x.awaitRevision(m); err != nil {
			return err
		}
	} else if m.minRevision == 0 && m.maxStaleness == 0 {
		return store.Wait(ctx, kv.Consistency{Stale: m.stale})
	}
	if m.minRevision != 0 {
		if err := store.Wait(ctx, kv.Consistency{MinRevision: m.minRevision}); err != nil {
			return err
		}
	}
	if m.maxStaleness != 0 {
		return store.Wait(ctx, kv.Consistency{Stale: true, MaxStaleness: m.maxStaleness})
	}
	return nil
}

// awaitRevision waits until this node has applied the revision that is read. The
// past does not change, so what it has applied needs no round. If it is behind,
// one linearizable round tells whether the revision exists at all; the revision
// of a cursor does.
func (x *exchange) awaitRevision(m *readMode) error {
	store := x.s.cfg.Store
	current, _ := store.Revisions()
	if current >= m.revision {
		return nil
	}
	need := kv.Consistency{}
	if m.cursor {
		need.MinRevision = m.revision
	}
	if err := store.Wait(x.r.Context(), need); err != nil {
		return err
	}
	if current, _ = store.Revisions(); current < m.revision {
		return kv.Errorf(kv.FutureRevision, "revision %d does not exist yet; the newest is %d", m.revision, current)
	}
	return nil
}

// view waits as await does and pins the state then. It returns nil when it has
// answered why not, as it does if a fault was reported.
func (x *exchange) view(m *readMode) View {
	if x.refused() || !x.await(m) {
		return nil
	}
	v, err := x.s.cfg.Store.View()
	if err != nil {
		x.refuseRead(err)
		return nil
	}
	return v
}

// readView reads from a state as new as m says, within the time of a read, and lets go
// of it before the answer is written: what read found is in x.out. It returns false
// when it has answered why not.
func (x *exchange) readView(m *readMode, read func(context.Context, View) error) (revision uint64, ok bool) {
	v := x.view(m)
	if v == nil {
		return 0, false
	}
	return x.readPinned(v, read)
}

// readList is readView for what may be much, as one of the lists that are read at a
// time.
func (x *exchange) readList(m *readMode, read func(context.Context, View) error) (revision uint64, ok bool) {
	v := x.view(m)
	if v == nil {
		return 0, false
	}
	if !x.enterPage() {
		v.Close()
		return 0, false
	}
	defer x.leavePage()
	return x.readPinned(v, read)
}

func (x *exchange) readPinned(v View, read func(context.Context, View) error) (revision uint64, ok bool) {
	defer v.Close()
	ctx, cancel := context.WithTimeout(x.r.Context(), x.s.cfg.ReadTimeout)
	defer cancel()
	if err := read(ctx, v); err != nil {
		x.refuseRead(err)
		return 0, false
	}
	return v.Revision(), true
}

// getKey answers GET and HEAD on a key.
func (x *exchange) getKey(key []byte) {
	f := form{base64: x.base64Param()}
	mode := x.readMode()
	condition := x.readConditions()
	if x.refused() {
		return
	}
	e, revision, ok := x.readEntry(key, &mode)
	if !ok {
		return
	}

	h := x.w.Header()
	h["Vary"] = valueAccept
	contentType := e.ContentType
	if contentType == "" || isForm(contentType) {
		contentType = api.TypeOctets
	}
	wanted := negotiate(x.r.Header["Accept"], contentType, api.TypeJSON)
	if wanted == wantsNeither {
		x.fault = newFault(api.CodeNotAcceptable, "the value is "+contentType+", or as an entry application/json")
		x.sendProblem(revision)
		return
	}
	x.setTag(e.ModRevision, wanted == wantsSecond)
	if condition.failed(e.ModRevision) {
		x.fault = newFault(api.CodeConditionFailed, "the key is at another revision than the condition says")
		x.fault.current, x.fault.hasCurrent = e.ModRevision, true
		x.sendProblem(revision)
		return
	}
	h["Cache-Control"] = valueNoCache
	x.setNumber(api.HeaderModRevision, e.ModRevision)
	x.setNumber(api.HeaderCreateRevision, e.CreateRevision)
	x.setNumber(api.HeaderVersion, e.Version)
	x.setLease(e.Lease)
	if condition.unchanged(e.ModRevision, wanted == wantsSecond) {
		x.writeHeader(304, revision)
		return
	}
	h["X-Content-Type-Options"] = valueNosniff
	if wanted == wantsSecond {
		x.out = append(f.appendEntry(x.out[:0], e), '\n')
		x.send(200, valueJSON, x.out, revision)
		return
	}
	h["Content-Security-Policy"] = valueSandbox
	x.setHeader("Content-Type", contentType)
	x.send(200, nil, e.Value, revision)
}

// readEntry reads a key as mode says. It returns false when it has answered:
// also for a key that does not exist.
func (x *exchange) readEntry(key []byte, mode *readMode) (*kv.Entry, uint64, bool) {
	var err error
	var found bool
	var revision uint64
	if mode.revision == 0 {
		if !x.await(mode) {
			return nil, 0, false
		}
		x.entry, found, revision, err = x.s.cfg.Store.Get(key)
	} else {
		v := x.view(mode)
		if v == nil {
			return nil, 0, false
		}
		defer v.Close()
		revision = v.Revision()
		x.entry, found, err = v.Get(key, mode.revision)
	}
	switch {
	case err != nil:
		x.refuseRead(err)
	case !found:
		x.fault = newFault(api.CodeKeyNotFound, "there is no such key")
		x.sendProblem(revision)
	default:
		return &x.entry, revision, true
	}
	return nil, 0, false
}
