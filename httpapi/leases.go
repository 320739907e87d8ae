package httpapi

import (
	"context"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

const leasesPath = "/v1/leases/"

// A leaseName is what a request calls a lease: its id, or its number, which must
// be looked up before a command can carry it.
type leaseName struct {
	id     kv.LeaseID
	number int64
	text   string
}

// parseLeaseName reads an id or a number. The two can't be mistaken for each
// other: a number has fewer digits than an id.
func (x *exchange) parseLeaseName(what, s string) leaseName {
	name := leaseName{text: s}
	if n, ok := parseUint(s); ok && len(s) <= len("9223372036854775807") && n > 0 && n < 1<<63 && s[0] != '0' {
		name.number = int64(n)
		return name
	}
	id, err := ulid.ParseStrict(s)
	if err != nil || id == (kv.LeaseID{}) {
		x.fail(api.CodeInvalidArgument, "%s is %.40q: want a lease's ULID, 26 letters and digits, or its number, from 1 to 2^63-1", what, s)
	}
	name.id = id
	return name
}

// leaseInPath returns the lease that the path names before suffix.
func (x *exchange) leaseInPath(suffix string) leaseName {
	s, _ := pathKey(x.r.URL, leasesPath)
	s, _ = strings.CutSuffix(s, suffix)
	return x.parseLeaseName("the lease", s)
}

// findLeases looks up the ids of leases that were named by number, in a state
// that is linearizable: a number may belong to another lease later. What is not
// found stays without an id. It returns false when it has answered.
func (x *exchange) findLeases(names []leaseName) bool {
	numbered := false
	for i := range names {
		numbered = numbered || names[i].number != 0
	}
	if !numbered {
		return true
	}
	v := x.view(&readMode{})
	if v == nil {
		return false
	}
	defer v.Close()
	for i := range names {
		n := &names[i]
		if n.number == 0 {
			continue
		}
		id, found, err := v.LeaseByNumber(n.number)
		if err != nil {
			x.refuseRead(err)
			return false
		}
		if found {
			n.id = id
		}
	}
	return true
}

// findLease is findLeases for one, which must exist.
func (x *exchange) findLease(name leaseName) (kv.LeaseID, bool) {
	one := [1]leaseName{name}
	if !x.findLeases(one[:]) {
		return kv.LeaseID{}, false
	}
	if one[0].id == (kv.LeaseID{}) {
		x.leaseNotFound()
		return kv.LeaseID{}, false
	}
	return one[0].id, true
}

func (x *exchange) leaseNotFound() { x.refuse(api.CodeLeaseNotFound, "there is no such lease") }

// grantLease answers POST /v1/leases.
func (x *exchange) grantLease() {
	lease := kv.Lease{}
	ttl := false
	body, _ := x.readBody(maxBodyBytes)
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			p.object("a grant", func(name string) bool {
				switch name {
				case "id":
					if s := string(p.string()); !p.broken {
						given := x.parseLeaseName("id", s)
						lease.ID, lease.Number = given.id, given.number
					}
				case "ttl_seconds":
					lease.TTLMillis, ttl = p.millis(name, kv.MinLeaseTTLMillis, kv.MaxLeaseTTLMillis), true
				default:
					return false
				}
				return true
			})
			if !p.broken && !ttl {
				x.fail(api.CodeInvalidArgument, "a grant needs ttl_seconds")
			}
		})
	}
	if x.refused() {
		return
	}
	if lease.ID == (kv.LeaseID{}) {
		lease.ID = newULID(x.began)
	}
	x.command.Kind, x.command.Lease = kv.KindLeaseGrant, lease
	r := x.propose(body)
	if r == nil {
		return
	}
	l := x.onlyLease(r)
	if l == nil {
		return
	}
	x.setLease(l.ID)
	start := len(x.text)
	x.text = appendLease(append(x.text, leasesPath...), l.ID)
	x.lines = append(x.lines, headerLine{"Location", start, len(x.text)})
	x.out = appendGranted(x.out[:0], l)
	x.sendJSON(201, r.Revision)
}

// onlyLease is the lease that a result is about. A result that isn't about one is
// a bug; it is answered, and nil returned.
func (x *exchange) onlyLease(r *kv.Result) *kv.LeaseResult {
	if len(r.Leases) == 1 {
		return &r.Leases[0]
	}
	x.s.cfg.Logger.Error("A result does not fit its command.", "request_id", x.id(), "route", x.route.pattern, "leases", len(r.Leases))
	x.refuse(api.CodeInternal, "the command was applied, but its result is not what was expected")
	return nil
}

// listLeases answers GET /v1/leases.
func (x *exchange) listLeases() {
	mode := x.readMode()
	limit := x.limitParam()
	var after kv.LeaseID
	asked := question([]byte{'L'})
	if c, ok := x.placeParam(asked, &mode); ok {
		if len(c.after) != len(after) {
			x.fail(api.CodeBadCursor, "the cursor was not made by this cluster")
		} else {
			after = kv.LeaseID(c.after)
		}
	}
	revision, ok := x.readList(&mode, func(ctx context.Context, v View) error {
		leases, more, err := v.Leases(ctx, after, limit)
		if err != nil {
			return err
		}
		x.out = append(x.out[:0], `{"leases":[`...)
		for i := range leases {
			if i > 0 {
				x.out = append(x.out, ',')
			}
			x.out = append(appendLeaseState(x.out, &leases[i]), '}')
		}
		x.out = appendBool(append(x.out, ']'), `,"more":`, more)
		if more {
			x.nextPlace(asked, v, leases[len(leases)-1].ID[:])
		}
		x.out = append(x.out, '}')
		return nil
	})
	if ok {
		x.sendJSON(200, revision)
	}
}

// getLease answers GET /v1/leases/{id}.
func (x *exchange) getLease() {
	f := form{base64: x.base64Param()}
	name := x.leaseInPath("")
	mode := x.readMode()
	withKeys := x.boolParam(pKeys)
	limit := x.limitParam()
	asked := question([]byte{'K'}, name.id[:], strconv.AppendInt(nil, name.number, 10))
	c, continued := x.placeParam(asked, &mode)
	if !withKeys && (continued || x.q.present.has(pLimit)) {
		x.fail(api.CodeInvalidArgument, "limit and cursor are of keys=true")
	}
	var found bool
	read := func(ctx context.Context, v View) (err error) {
		if name.number != 0 {
			if name.id, _, err = v.LeaseByNumber(name.number); err != nil {
				return err
			}
		}
		var l kv.LeaseState
		if l, found, err = v.Lease(name.id); err != nil || !found {
			return err
		}
		x.out = appendLeaseState(x.out[:0], &l)
		if withKeys {
			err = x.appendLeaseKeys(ctx, f, v, l.ID, c.after, limit, asked)
		}
		x.out = append(x.out, '}')
		return err
	}
	within := x.readView
	if withKeys {
		within = x.readList
	}
	revision, ok := within(&mode, read)
	switch {
	case !ok:
	case !found:
		x.leaseNotFound()
	default:
		x.sendJSON(200, revision)
	}
}

// appendLeaseKeys appends a page of the keys of a lease.
func (x *exchange) appendLeaseKeys(ctx context.Context, f form, v View, id kv.LeaseID, after []byte, limit int, asked [16]byte) error {
	keys, more, err := v.LeaseKeys(ctx, id, after, limit, maxPageBytes)
	if err != nil {
		return err
	}
	x.out = f.appendKeys(x.out, "keys", keys)
	x.out = appendBool(x.out, `,"more":`, more)
	if more {
		x.nextPlace(asked, v, keys[len(keys)-1])
	}
	return nil
}

// revokeLease answers DELETE /v1/leases/{id}.
func (x *exchange) revokeLease() {
	name := x.leaseInPath("")
	if x.refused() {
		return
	}
	// One that isn't found is proposed, too: the request may be a repetition of the
	// one that ended it, of which applying knows.
	one := [1]leaseName{name}
	if !x.findLeases(one[:]) {
		return
	}
	x.command.Kind, x.command.Lease = kv.KindLeaseRevoke, kv.Lease{ID: one[0].id}
	if r := x.propose(nil); r != nil {
		x.out = form{}.appendDelete(x.out[:0], r.Revision, false, r.Ops...)
		x.sendJSON(200, r.Revision)
	}
}

// renewLease answers POST /v1/leases/{id}/keepalive.
func (x *exchange) renewLease() {
	name := x.leaseInPath("/keepalive")
	if x.refused() {
		return
	}
	id, ok := x.findLease(name)
	if !ok {
		return
	}
	l, revision := x.renew(id)
	if l == nil {
		return
	}
	x.out = appendGranted(x.out[:0], l)
	x.sendJSON(200, revision)
}

// renew renews one lease. It returns nil when it has answered why not.
func (x *exchange) renew(id kv.LeaseID) (*kv.LeaseResult, uint64) {
	x.leases = append(x.leases[:0], id)
	x.command.Kind, x.command.Renew = kv.KindLeaseRenew, x.leases
	r := x.propose(nil)
	if r == nil {
		return nil, 0
	}
	l := x.onlyLease(r)
	if l != nil && l.Code != kv.OK {
		x.leaseNotFound()
		l = nil
	}
	return l, r.Revision
}

// renewLeases answers POST /v1/leases/keepalive.
func (x *exchange) renewLeases() {
	names, body := x.leasesInBody()
	if x.refused() {
		return
	}
	if r := x.renewAll(names, body); r != nil {
		x.out = appendRenewed(x.out[:0], names, r.Leases)
		x.sendJSON(200, r.Revision)
	}
}

// leasesInBody reads which leases are to be renewed.
func (x *exchange) leasesInBody() (names []leaseName, body []byte) {
	given := false
	body, _ = x.readBody(maxBodyBytes)
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			p.object("a renewal", func(name string) bool {
				if name != "ids" {
					return false
				}
				given = true
				p.array("the leases to renew", func() {
					if s := string(p.string()); !p.broken && len(names) <= kv.MaxRenewals {
						names = append(names, x.parseLeaseName("a lease", s))
					}
				})
				return true
			})
			if !p.broken && !given {
				x.fail(api.CodeInvalidArgument, "a renewal needs ids")
			}
		})
	}
	if len(names) > kv.MaxRenewals {
		x.failLimit(api.CodeInvalidArgument, kv.MaxRenewals, "one request renews at most %d leases", kv.MaxRenewals)
	}
	return names, body
}

// renewAll renews leases, and those that are named by number get their ids. It
// returns nil when it has answered why not.
func (x *exchange) renewAll(names []leaseName, body []byte) *kv.Result {
	if !x.findLeases(names) {
		return nil
	}
	ids := x.leases[:0]
	for i := range names {
		if names[i].id != (kv.LeaseID{}) {
			ids = append(ids, names[i].id)
		}
	}
	x.leases = ids
	x.command.Kind, x.command.Renew = kv.KindLeaseRenew, ids
	return x.propose(body)
}

// appendRenewed appends what became of each renewal. There is a result for each of
// the names that has an id.
func appendRenewed(b []byte, names []leaseName, results []kv.LeaseResult) []byte {
	b = append(b, `{"leases":[`...)
	for i := range names {
		if i > 0 {
			b = append(b, ',')
		}
		var l *kv.LeaseResult
		if names[i].id != (kv.LeaseID{}) && len(results) > 0 {
			l, results = &results[0], results[1:]
		}
		if l == nil || l.Code != kv.OK {
			b = appendNoLease(b, names[i].text)
			continue
		}
		b = appendGranted(b, l)
	}
	return append(b, ']', '}')
}

func appendNoLease(b []byte, name string) []byte {
	b = appendQuoted(append(b, `{"id":`...), name)
	return append(b, `,"error":"`+string(api.CodeLeaseNotFound)+`"}`...)
}

// appendGranted appends a lease that was granted or renewed just now. It has no
// remaining time: how much of it is left depends on how long the answer takes.
func appendGranted(b []byte, l *kv.LeaseResult) []byte {
	return append(appendLeaseHead(b, l.ID, l.Number, l.TTLMillis), '}')
}

// appendLeaseState appends a lease without the closing brace.
func appendLeaseState(b []byte, l *kv.LeaseState) []byte {
	b = appendLeaseHead(b, l.ID, l.Number, l.TTLMillis)
	b = appendMillis(b, `,"remaining_seconds":`, l.RemainingMillis)
	return appendUint(b, `,"key_count":`, l.Keys)
}

func appendLeaseHead(b []byte, id kv.LeaseID, number, ttl int64) []byte {
	b = append(b, `{"id":"`...)
	b = appendLease(b, id)
	b = append(b, `","number":"`...)
	b = strconv.AppendInt(b, number, 10)
	return appendMillis(b, `","ttl_seconds":`, ttl)
}

// appendMillis appends thousandths as a number with up to three decimals.
func appendMillis(b []byte, name string, ms int64) []byte {
	b = append(b, name...)
	b = strconv.AppendInt(b, ms/1000, 10)
	if rest := ms % 1000; rest != 0 {
		b = append(b, '.', byte('0'+rest/100))
		if rest %= 100; rest != 0 {
			b = append(b, byte('0'+rest/10))
			if rest %= 10; rest != 0 {
				b = append(b, byte('0'+rest))
			}
		}
	}
	return b
}
