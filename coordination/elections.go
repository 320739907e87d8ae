package coordination

import (
	"context"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// Campaign makes the caller the leader, or waits for its turn. It is what Acquire
// is to locks: candidates lead in the order in which they came, and the leader's
// key holds what it proclaims. The error of who is not elected is a *Held.
func (r *Recipes) Campaign(ctx context.Context, ask Claim) (Holder, error) {
	c := r.claim(electionSite(ask.Name), &ask)
	c.kind = Kind{}
	c.value, c.contentType = ask.Value, ask.ContentType
	return r.answer(ctx, c, kv.NotElected)
}

// Proclaim changes what the leader that has the token proclaims. The error of a
// token that is not the leader's is NotHolder.
func (r *Recipes) Proclaim(ctx context.Context, name string, token uint64, value []byte, contentType string) (revision uint64, err error) {
	s := electionSite(name)
	result, err := r.transact(ctx, &kv.Txn{
		If:   []kv.Compare{created(s.alone(), token)},
		Then: []kv.Op{{Type: kv.OpPut, Key: s.alone(), Value: value, ContentType: contentType, IgnoreLease: true}},
	})
	if err != nil {
		return 0, err
	}
	if !result.Succeeded {
		return 0, notHolder(s, token)
	}
	return result.Revision, nil
}

// Resign ends the lead of who has the token; the next candidate leads.
func (r *Recipes) Resign(ctx context.Context, name string, token uint64) (revision uint64, err error) {
	return r.release(ctx, electionSite(name), token)
}

// Observe calls fn with the leader of an election, nil while there is none: at
// first and after each change, until ctx ends or fn fails. After each time of quiet it
// calls it with nothing that changed, and without the leader, whose value may be large
// and is read once. Changes that follow each other quickly may be seen as one; revision
// is the one at which it was looked.
func (r *Recipes) Observe(ctx context.Context, name string, quiet time.Duration, fn func(revision uint64, leader *Holder, changed bool) error) error {
	s := electionSite(name)
	first, seen := true, uint64(0)
	for {
		revision, leader, mod, err := r.leader(ctx, s, seen)
		if err != nil {
			return err
		}
		if err := fn(revision, leader, first || mod != seen); err != nil {
			return err
		}
		first, seen = false, mod
		if err := r.changes(ctx, s, revision, quiet); err != nil {
			return err
		}
	}
}

// changes returns when the leader's key changed after a revision, or nothing
// happened for a while.
func (r *Recipes) changes(ctx context.Context, s site, revision uint64, quiet time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	_, err := r.store.WaitChange(waiting, kv.SingleKey(s.alone()), revision)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case waiting.Err() != nil:
		return nil
	}
	return err
}

// leader reads who leads, unless the revision at which that changed last, 0 if nobody
// leads, is the one that was seen.
func (r *Recipes) leader(ctx context.Context, s site, seen uint64) (revision uint64, leader *Holder, mod uint64, err error) {
	v, err := r.store.View()
	if err != nil {
		return 0, nil, 0, err
	}
	defer v.Close()
	l, err := v.List(ctx, &kv.Query{Range: kv.SingleKey(s.alone()), KeysOnly: true})
	if err != nil || len(l.Entries) == 0 {
		return v.Revision(), nil, 0, err
	}
	if mod = l.Entries[0].ModRevision; mod == seen {
		return v.Revision(), nil, mod, nil
	}
	e, _, err := v.Get(s.alone(), 0)
	if err != nil {
		return 0, nil, 0, err
	}
	h := s.holderOf(&e)
	return v.Revision(), &h, mod, nil
}
