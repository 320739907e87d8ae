package httpapi

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// postCompact answers POST /v1/compact. What to keep is made into a revision
// here, since applying a command knows no clock.
func (x *exchange) postCompact() {
	body, _ := x.readBody(maxBodyBytes)
	var revision, keepRevisions uint64
	var keepMillis int64
	given := ""
	members := 0
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) {
			p.object("a compaction", func(name string) bool {
				switch name {
				case "revision":
					revision = p.uint(name, 1, kv.MaxRevision)
				case "keep_revisions":
					keepRevisions = p.uint(name, 0, kv.MaxRevision)
				case "keep_seconds":
					keepMillis = p.millis(name, 0, kv.MaxRevision)
				default:
					return false
				}
				given = name
				members++
				return true
			})
			if !p.broken && members != 1 {
				x.fail(api.CodeInvalidArgument, "a compaction has exactly one of revision, keep_revisions and keep_seconds")
			}
		})
	}
	if x.refused() {
		return
	}

	store := x.s.cfg.Store
	if given != "revision" {
		if err := store.Wait(x.r.Context(), kv.Consistency{}); err != nil {
			x.refuseRead(err)
			return
		}
	}
	current, compacted := store.Revisions()
	switch given {
	case "keep_revisions":
		if keepRevisions < current {
			revision = current - keepRevisions
		}
	case "keep_seconds":
		var err error
		if revision, err = store.RevisionAt(x.began.UnixMilli() - keepMillis); err != nil {
			x.refuseRead(err)
			return
		}
	}
	if given != "revision" && revision <= compacted {
		// Everything that is to be kept is all that there is.
		if x.idempotency == "" {
			x.sendCompacted(current, compacted)
			return
		}
		// Or this is a repetition, whose first answer is in the store.
		revision = compacted
	}
	x.command.Kind, x.command.Compact = kv.KindCompact, revision
	r := x.resultOf(body)
	switch {
	case r == nil:
	case r.Code == kv.OK, r.Code == kv.Compacted && given != "revision":
		// Where another compaction came first and went further, it is done.
		x.sendCompacted(r.Revision, r.CompactRevision)
	default:
		x.refuseResult(r)
	}
}

func (x *exchange) sendCompacted(revision, compacted uint64) {
	x.out = appendUint(x.out[:0], `{"revision":`, revision)
	x.out = appendUint(x.out, `,"compact_revision":`, compacted)
	x.out = append(x.out, '}')
	x.sendJSON(200, revision)
}

// hash answers GET /v1/hash.
func (x *exchange) hash() {
	mode := x.readMode()
	v := x.view(&mode)
	if v == nil {
		return
	}
	defer v.Close()
	if !x.enter(x.s.admission.hashes) { // it reads everything
		return
	}
	defer leave(x.s.admission.hashes)
	revision := mode.revision
	if revision == 0 {
		revision = v.Revision()
	}
	sum, err := v.Hash(x.r.Context(), revision)
	if err != nil {
		x.refuseRead(err)
		return
	}
	x.sendValue(200, v.Revision(), api.Hash{
		Revision: revision, CompactRevision: v.Compacted(), Hash: hex.EncodeToString(sum[:]),
	})
}

// status answers GET /v1/status.
func (x *exchange) status() {
	if x.refused() {
		return
	}
	s := x.s.cfg.Store.Status()
	answer := api.Status{
		ClusterID: s.ClusterID.String(), MemberID: s.MemberID.String(), Name: s.Name, Version: x.s.cfg.Version,
		Leader: memberOf(&s, s.Leader), IsLeader: s.Leader != 0 && s.Leader == s.Replica,
		Term: s.Term, AppliedIndex: s.AppliedIndex, Revision: s.Revision, CompactRevision: s.CompactRevision,
		Keys: s.Keys, Leases: s.Leases, IdempotencyRecords: s.IdempotencyRecords,
		DiskBytes: s.DiskBytes, DiskFreeBytes: s.DiskFreeBytes, QuotaBytes: s.QuotaBytes,
		ClusterVersion: s.ClusterVersion, StartedAt: api.Time{Time: s.StartedAt},
		Members: []api.Member{}, Alarms: alarmsOf(&s),
	}
	watches := x.s.cfg.Watchers.Stats()
	answer.Watches = api.WatchStatus{
		Open: watches.Streams, Live: watches.Live, Behind: watches.Behind, Lag: watches.Lag, QueuedBytes: watches.QueuedBytes,
	}
	answer.InTouch = s.InTouch
	if !s.LastLinearizable.IsZero() {
		answer.LastLinearizableAt = &api.Time{Time: s.LastLinearizable}
	}
	for i := range s.Members {
		m := &s.Members[i]
		answer.Members = append(answer.Members, api.Member{
			ID: m.ID.String(), Name: m.Name, Version: m.Version, ClientURL: m.ClientURL, PeerAddress: m.PeerAddress,
		})
	}
	x.sendValue(200, s.Revision, answer)
}

// memberOf is the id of the member behind a replica, or empty.
func memberOf(s *kv.Status, replica uint64) string {
	for i := range s.Members {
		if m := &s.Members[i]; m.Replica == replica && replica != 0 {
			return m.ID.String()
		}
	}
	return ""
}

func alarmsOf(s *kv.Status) []api.Alarm {
	alarms := []api.Alarm{}
	for _, a := range s.Alarms {
		alarms = append(alarms, api.Alarm{Member: memberOf(s, a.Replica), Type: a.Type.String()})
	}
	return alarms
}

// alarms answers GET /v1/alarms.
func (x *exchange) alarms() {
	mode := x.readMode()
	if x.refused() || !x.await(&mode) {
		return
	}
	s := x.s.cfg.Store.Status()
	x.sendValue(200, s.Revision, api.Alarms{Alarms: alarmsOf(&s)})
}

// clearAlarms answers DELETE /v1/alarms with a command for each alarm that is
// meant. One whose cause is still there is raised again by its member.
func (x *exchange) clearAlarms() {
	member, only := "", x.wordParam(pType, "", kv.AlarmNoSpace.String(), kv.AlarmCorrupt.String())
	if x.q.present.has(pMember) {
		member = x.parseMember("parameter member", x.q.values[pMember]).String()
	}
	if x.refused() {
		return
	}
	if err := x.s.cfg.Store.Wait(x.r.Context(), kv.Consistency{}); err != nil {
		x.refuseRead(err)
		return
	}
	s := x.s.cfg.Store.Status()
	revision := s.Revision
	key, cleared := x.idempotency, 0
	for _, a := range s.Alarms {
		if only != "" && only != a.Type.String() || member != "" && member != memberOf(&s, a.Replica) {
			continue
		}
		x.command.Kind = kv.KindAlarm
		x.command.Alarm = kv.Alarm{Replica: a.Replica, Type: a.Type}
		if key != "" {
			x.idempotency = fmt.Sprintf("%s/%x.%d", key, a.Replica, a.Type)
		}
		r := x.propose(nil)
		if r == nil {
			return
		}
		revision = r.Revision
		cleared++
	}
	x.sendValue(200, revision, api.ClearedAlarms{Revision: revision, Cleared: cleared})
}

// sendValue answers with JSON by reflection, for routes that are asked rarely.
func (x *exchange) sendValue(status int, revision uint64, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		x.s.cfg.Logger.Error("An answer can't be encoded.", "request_id", x.id(), "route", x.route.pattern, "error", err)
		x.refuse(api.CodeInternal, "the answer can't be encoded")
		return
	}
	x.out = append(x.out[:0], b...)
	x.sendJSON(status, revision)
}
