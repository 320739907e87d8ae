package coordination

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cairnkv/cairn/kv"
)

// An Instance is one registration of a service.
type Instance struct {
	Service, Name string
	// Lease is the lease that the registration ends with. If it is zero at
	// registration, it gets one of its own with the time to live.
	Lease kv.LeaseID
	Registration

	CreateRevision, ModRevision uint64
	At                          time.Time
}

// Registration is what an instance says of itself: the value of its key.
type Registration struct {
	Address  string            `json:"address,omitempty"`
	Port     int               `json:"port,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// TTLSeconds is the time to live of a lease of its own, else 0.
	TTLSeconds float64 `json:"ttl_seconds,omitempty"`
}

func instanceKey(service, name string) []byte {
	return []byte(servicesPrefix + service + "/" + name)
}

func instanceOf(e *kv.Entry) Instance {
	i := Instance{
		Lease: e.Lease, CreateRevision: e.CreateRevision, ModRevision: e.ModRevision, At: time.UnixMilli(e.ModifiedAt),
	}
	i.Service, i.Name, _ = strings.Cut(strings.TrimPrefix(string(e.Key), servicesPrefix), "/")
	_ = json.Unmarshal(e.Value, &i.Registration) // as Register wrote it
	return i
}

// Register registers an instance, or renews it. A registration that says what the
// one before said only renews its lease: it makes no new revision, so those who
// watch the service see no change. The error of a lease that is gone is
// LeaseNotFound.
func (r *Recipes) Register(ctx context.Context, i Instance) (registered Instance, created bool, err error) {
	value, err := json.Marshal(i.Registration)
	if err != nil {
		return i, false, err
	}
	key := instanceKey(i.Service, i.Name)
	put := kv.Op{Type: kv.OpPut, Key: key, Value: value, ContentType: contentTypeJSON, Lease: i.Lease}
	read := get(&kv.Query{Range: kv.SingleKey(key)})
	txn := &kv.Txn{Then: []kv.Op{put, read}}
	if i.Lease == (kv.LeaseID{}) {
		if e, ok, err := r.renewSame(ctx, key, value); err != nil || ok {
			return instanceOf(&e), false, err
		}
		txn.Then[0].Lease, txn.Then[0].OwnTTLMillis = r.newID(), int64(math.Round(i.TTLSeconds*1000))
	} else {
		leases, err := r.renew(ctx, i.Lease)
		if err != nil {
			return i, false, err
		}
		if leases[0].Code != kv.OK {
			return i, false, kv.Errorf(leases[0].Code, "there is no lease %s", i.Lease)
		}
		same := kv.SingleKey(key)
		txn.If = []kv.Compare{
			{Range: same, Target: kv.TargetValue, Operator: kv.Equal, Bytes: value},
			{Range: same, Target: kv.TargetLease, Operator: kv.Equal, Lease: i.Lease},
		}
		txn.Then, txn.Else = []kv.Op{read}, txn.Then
	}
	result, err := r.transact(ctx, txn)
	if err != nil {
		return i, false, err
	}
	last := len(result.Ops) - 1
	return instanceOf(&entries(&result.Ops[last])[0]), result.Ops[0].Created, nil
}

// renewSame renews a registration that has a lease of its own and says the same.
// What this node has may be old, but that lease exists only as long as the very
// registration that it came with.
func (r *Recipes) renewSame(ctx context.Context, key, value []byte) (e kv.Entry, ok bool, err error) {
	v, err := r.store.View()
	if err != nil {
		return e, false, err
	}
	e, found, err := v.Get(key, 0)
	v.Close()
	if err != nil || !found || !bytes.Equal(e.Value, value) {
		return e, false, err
	}
	leases, err := r.renew(ctx, e.Lease)
	if err != nil {
		return e, false, err
	}
	return e, leases[0].Code == kv.OK, nil
}

// Deregister ends a registration and says whether there was one.
func (r *Recipes) Deregister(ctx context.Context, service, name string) (deleted bool, revision uint64, err error) {
	result, err := r.transact(ctx, &kv.Txn{Then: []kv.Op{remove(instanceKey(service, name))}})
	if err != nil {
		return false, 0, err
	}
	return result.Ops[0].Deleted > 0, result.Revision, nil
}

// Instance finds a registration in a view.
func (r *Recipes) Instance(v View, service, name string) (i Instance, found bool, err error) {
	e, found, err := v.Get(instanceKey(service, name), 0)
	if err != nil || !found {
		return i, false, err
	}
	return instanceOf(&e), true, nil
}

// pageOfInstances and pageOfInstancesBytes bound what is read of registrations at
// once.
const (
	pageOfInstances      = 1_000
	pageOfInstancesBytes = 1 << 20
)

// maxInstancesBytes is after how many bytes of registrations Instances lists no more:
// all of them are in memory.
const maxInstancesBytes = 4 << 20

// Instances lists up to limit registrations of a service in a view, in the order
// of their names, those after a name, and of them those that have the tag, if it
// is not empty; fewer where they are large. It reports whether there are more, and then
// has at least one.
func (r *Recipes) Instances(ctx context.Context, v View, service, tag, after string, limit int) (found []Instance, more bool, err error) {
	q := &kv.Query{Range: kv.Prefix(instanceKey(service, "")), Limit: pageOfInstances, MaxBytes: pageOfInstancesBytes}
	if tag == "" {
		q.Limit = min(q.Limit, limit+1) // the one beyond says that there are more
	}
	if after != "" {
		q.After = instanceKey(service, after)
	}
	total := 0
	for {
		// Many pages may have nothing that is wanted, and each is too short for the view to
		// look at the context.
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		l, err := v.List(ctx, q)
		if err != nil {
			return nil, false, err
		}
		for k := range l.Entries {
			i := instanceOf(&l.Entries[k])
			if tag != "" && !slices.Contains(i.Tags, tag) {
				continue
			}
			if len(found) == limit || total > maxInstancesBytes {
				return found, true, nil
			}
			found = append(found, i)
			total += len(l.Entries[k].Value)
		}
		if !l.More {
			return found, false, nil
		}
		q.After = l.Next
	}
}

// Services lists up to limit names of services that have an instance, in order,
// those after a name. It reports whether there are more.
func (r *Recipes) Services(ctx context.Context, v View, after string, limit int) (names []string, more bool, err error) {
	prefix := []byte(servicesPrefix)
	q := &kv.Query{Range: kv.Prefix(prefix), PrefixLen: len(prefix), Delimiter: []byte("/"), Limit: limit, KeysOnly: true}
	if after != "" {
		q.After = instanceKey(after, "")
	}
	l, err := v.List(ctx, q)
	if err != nil {
		return nil, false, err
	}
	for _, p := range l.CommonPrefixes {
		names = append(names, strings.TrimSuffix(string(p[len(prefix):]), "/"))
	}
	return names, l.More, nil
}
