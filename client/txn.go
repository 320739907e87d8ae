package client

import (
	"context"
	"net/http"

	"github.com/cairnkv/cairn/api"
)

// Txn runs a transaction. That its compares did not hold is no error: see
// Succeeded of the result.
//
//	t := client.If(client.Key("a").ModRevision().Eq(9), client.Key("b").Missing()).
//		Then(client.OpPut("a", []byte("y")), client.OpIncrement("n", 1)).
//		Else(client.Key("a").Get())
//	result, err := c.Txn(ctx, t.Txn)
func (c *Client) Txn(ctx context.Context, txn api.Txn, opts ...WriteOption) (*api.TxnResult, error) {
	body, err := api.Marshal(txn)
	if err != nil {
		return nil, invalid("", "The transaction can't be written as JSON", err)
	}
	return c.TxnJSON(ctx, body, opts...)
}

// TxnJSON runs a transaction that is JSON already, as POST /v1/txn takes it.
func (c *Client) TxnJSON(ctx context.Context, txn []byte, opts ...WriteOption) (*api.TxnResult, error) {
	r := newRequest(http.MethodPost, "/v1/txn")
	r.body = txn
	r.header.Set("Content-Type", api.TypeJSON)
	for _, o := range opts {
		o.write(r)
	}
	return call[api.TxnResult](ctx, c, r)
}

// TxnBuilder puts a transaction together; it is done when its Txn is used.
type TxnBuilder struct{ api.Txn }

// If begins a transaction with what must hold for Then to be done. Without
// compares it always is.
func If(compares ...api.Compare) *TxnBuilder { return &TxnBuilder{api.Txn{If: compares}} }

// Then adds what is done if every compare holds.
func (b *TxnBuilder) Then(ops ...api.Op) *TxnBuilder {
	b.Txn.Then = append(b.Txn.Then, ops...)
	return b
}

// Else adds what is done otherwise.
func (b *TxnBuilder) Else(ops ...api.Op) *TxnBuilder {
	b.Txn.Else = append(b.Txn.Else, ops...)
	return b
}

// OpPut stores a value. For a lease or a content type, set the fields of its Put.
func OpPut(key string, value []byte) api.Op {
	return api.Op{Put: &api.Put{Key: []byte(key), Value: value}}
}

// OpIncrement adds to a decimal number; a key that does not exist counts as 0.
func OpIncrement(key string, by int64) api.Op {
	return api.Op{Increment: &api.Increment{Key: []byte(key), By: by}}
}

// OpTxn nests a transaction in another.
func OpTxn(t *TxnBuilder) api.Op { return api.Op{Txn: &t.Txn} }

// Get reads the keys, at most 100 of them; for more, or for an order, set the
// fields of its Get.
func (k Keys) Get() api.Op { return api.Op{Get: &api.Get{Range: k.r}} }

// Delete deletes the keys.
func (k Keys) Delete() api.Op { return api.Op{Delete: &api.Delete{Range: k.r}} }

// Exists holds if every one of the keys exists; of a range, if it has a key.
func (k Keys) Exists() api.Compare {
	return api.Compare{Range: k.r, Target: api.TargetExists, Exists: true}
}

// Missing holds if none of the keys exists.
func (k Keys) Missing() api.Compare {
	return api.Compare{Range: k.r, Target: api.TargetExists}
}

// Version is the number of times that a key was put since it was created.
func (k Keys) Version() Number { return Number{k, api.TargetVersion} }

// CreateRevision is the revision at which a key was created.
func (k Keys) CreateRevision() Number { return Number{k, api.TargetCreateRevision} }

// ModRevision is the revision at which a key was put last.
func (k Keys) ModRevision() Number { return Number{k, api.TargetModRevision} }

// Value is the value of a key.
func (k Keys) Value() Bytes { return Bytes{k} }

// Lease is the id of the lease of a key; empty if it has none.
func (k Keys) Lease() LeaseID { return LeaseID{k} }

// Number is a number to compare with; of a key that does not exist it is 0.
type Number struct {
	keys   Keys
	target api.Target
}

func (n Number) compare(op api.Operator, with uint64) api.Compare {
	return api.Compare{Range: n.keys.r, Target: n.target, Operator: op, Number: with}
}

// Eq holds if the number is with.
func (n Number) Eq(with uint64) api.Compare { return n.compare(api.Eq, with) }

// Ne holds if the number is not with.
func (n Number) Ne(with uint64) api.Compare { return n.compare(api.Ne, with) }

// Gt holds if the number is greater than with.
func (n Number) Gt(with uint64) api.Compare { return n.compare(api.Gt, with) }

// Ge holds if the number is with or greater.
func (n Number) Ge(with uint64) api.Compare { return n.compare(api.Ge, with) }

// Lt holds if the number is less than with.
func (n Number) Lt(with uint64) api.Compare { return n.compare(api.Lt, with) }

// Le holds if the number is with or less.
func (n Number) Le(with uint64) api.Compare { return n.compare(api.Le, with) }

// Bytes is a value to compare with, byte by byte. No comparison with the value of
// a key that does not exist holds.
type Bytes struct{ keys Keys }

func (b Bytes) compare(op api.Operator, with []byte) api.Compare {
	return api.Compare{Range: b.keys.r, Target: api.TargetValue, Operator: op, Value: with}
}

// Eq holds if the value is with.
func (b Bytes) Eq(with []byte) api.Compare { return b.compare(api.Eq, with) }

// Ne holds if the value is not with.
func (b Bytes) Ne(with []byte) api.Compare { return b.compare(api.Ne, with) }

// Gt holds if the value comes after with.
func (b Bytes) Gt(with []byte) api.Compare { return b.compare(api.Gt, with) }

// Ge holds if the value is with or comes after it.
func (b Bytes) Ge(with []byte) api.Compare { return b.compare(api.Ge, with) }

// Lt holds if the value comes before with.
func (b Bytes) Lt(with []byte) api.Compare { return b.compare(api.Lt, with) }

// Le holds if the value is with or comes before it.
func (b Bytes) Le(with []byte) api.Compare { return b.compare(api.Le, with) }

// LeaseID is a lease to compare with.
type LeaseID struct{ keys Keys }

// Eq holds if the key is attached to this lease; empty means to none.
func (l LeaseID) Eq(id string) api.Compare {
	return api.Compare{Range: l.keys.r, Target: api.TargetLease, Operator: api.Eq, Lease: id}
}

// Ne holds if the key is not attached to this lease.
func (l LeaseID) Ne(id string) api.Compare {
	return api.Compare{Range: l.keys.r, Target: api.TargetLease, Operator: api.Ne, Lease: id}
}
