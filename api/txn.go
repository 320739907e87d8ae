package api

import "fmt"

// Txn is the body of POST /v1/txn: if every compare holds then do Then, else do
// Else.
type Txn struct {
	If   []Compare `json:"if,omitempty"`
	Then []Op      `json:"then,omitempty"`
	Else []Op      `json:"else,omitempty"`
}

// Range says which keys: Key alone, or Prefix alone, or Start (inclusive) and
// End (exclusive), of which either may be left out.
type Range struct {
	Key, Prefix, Start, End []byte
}

type rangeJSON struct {
	Key          *string `json:"key,omitempty"`
	KeyBase64    *string `json:"key_base64,omitempty"`
	Prefix       *string `json:"prefix,omitempty"`
	PrefixBase64 *string `json:"prefix_base64,omitempty"`
	Start        *string `json:"start,omitempty"`
	StartBase64  *string `json:"start_base64,omitempty"`
	End          *string `json:"end,omitempty"`
	EndBase64    *string `json:"end_base64,omitempty"`
}

func (r *Range) wire() rangeJSON {
	k, p, s, e := split(r.Key), split(r.Prefix), split(r.Start), split(r.End)
	return rangeJSON{k.Text, k.Base64, p.Text, p.Base64, s.Text, s.Base64, e.Text, e.Base64}
}

// Target is what a compare looks at.
type Target string

const (
	TargetValue          Target = "value"
	TargetVersion        Target = "version"
	TargetCreateRevision Target = "create_revision"
	TargetModRevision    Target = "mod_revision"
	TargetLease          Target = "lease"
	// TargetExists compares without an operator: Exists says what must be.
	TargetExists Target = "exists"
)

// Operator is how a compare compares.
type Operator string

const (
	Eq Operator = "eq"
	Ne Operator = "ne"
	Gt Operator = "gt"
	Ge Operator = "ge"
	Lt Operator = "lt"
	Le Operator = "le"
)

// Compare is a condition on every key of a range. For a key that does not exist
// and a range without keys, numbers compare as 0, a lease as empty, and a value
// compares as false.
type Compare struct {
	Range
	Target   Target
	Operator Operator
	// The field that belongs to Target is what is compared with.
	Value  []byte
	Number uint64 // a version or a revision
	Lease  string
	Exists bool
}

// MarshalJSON writes the compare as the server reads it.
func (c Compare) MarshalJSON() ([]byte, error) {
	w := struct {
		rangeJSON
		Value          map[Operator]string `json:"value,omitempty"`
		ValueBase64    map[Operator]string `json:"value_base64,omitempty"`
		Version        map[Operator]uint64 `json:"version,omitempty"`
		CreateRevision map[Operator]uint64 `json:"create_revision,omitempty"`
		ModRevision    map[Operator]uint64 `json:"mod_revision,omitempty"`
		Lease          map[Operator]string `json:"lease,omitempty"`
		Exists         *bool               `json:"exists,omitempty"`
	}{rangeJSON: c.Range.wire()}
	number := map[Operator]uint64{c.Operator: c.Number}
	switch c.Target {
	case TargetValue:
		v := c.Value
		if v == nil {
			v = []byte{}
		}
		if p := splitShort(v); p.Text != nil {
			w.Value = map[Operator]string{c.Operator: *p.Text}
		} else {
			w.ValueBase64 = map[Operator]string{c.Operator: *p.Base64}
		}
	case TargetVersion:
		w.Version = number
	case TargetCreateRevision:
		w.CreateRevision = number
	case TargetModRevision:
		w.ModRevision = number
	case TargetLease:
		w.Lease = map[Operator]string{c.Operator: c.Lease}
	case TargetExists:
		w.Exists = &c.Exists
	default:
		return nil, fmt.Errorf("compare of unknown target %q", c.Target)
	}
	return Marshal(w)
}

// Op is one operation of a transaction; exactly one field is set. A line of a
// bulk write is an Op with Put or Delete.
type Op struct {
	Put       *Put       `json:"put,omitempty"`
	Increment *Increment `json:"increment,omitempty"`
	Delete    *Delete    `json:"delete,omitempty"`
	Get       *Get       `json:"get,omitempty"`
	Txn       *Txn       `json:"txn,omitempty"`
}

// Put stores a value.
type Put struct {
	Key         []byte
	Value       []byte
	ContentType string
	// Lease attaches the key to a lease. TTLSeconds gives it a lease of its own
	// instead, which ends when the key is overwritten or deleted.
	Lease      string
	TTLSeconds float64
	// IgnoreValue keeps the value, IgnoreLease the lease that the key has; the
	// key must exist.
	IgnoreValue, IgnoreLease bool
	// Prev asks for what was replaced.
	Prev bool
}

// MarshalJSON writes the put as the server reads it.
func (p Put) MarshalJSON() ([]byte, error) {
	value := p.Value
	if value == nil && !p.IgnoreValue {
		value = []byte{}
	}
	k, v := split(p.Key), splitShort(value)
	return Marshal(struct {
		Key         *string `json:"key,omitempty"`
		KeyBase64   *string `json:"key_base64,omitempty"`
		Value       *string `json:"value,omitempty"`
		ValueBase64 *string `json:"value_base64,omitempty"`
		ContentType string  `json:"content_type,omitempty"`
		Lease       string  `json:"lease,omitempty"`
		TTLSeconds  float64 `json:"ttl_seconds,omitempty"`
		IgnoreValue bool    `json:"ignore_value,omitempty"`
		IgnoreLease bool    `json:"ignore_lease,omitempty"`
		Prev        bool    `json:"prev,omitempty"`
	}{k.Text, k.Base64, v.Text, v.Base64, p.ContentType, p.Lease, p.TTLSeconds, p.IgnoreValue, p.IgnoreLease, p.Prev})
}

// Increment adds to a decimal 64-bit integer. A key that does not exist counts
// as 0.
type Increment struct {
	Key []byte
	// By is what is added; it may be negative.
	By int64
}

// MarshalJSON writes the increment as the server reads it.
func (i Increment) MarshalJSON() ([]byte, error) {
	k := split(i.Key)
	return Marshal(struct {
		Key       *string `json:"key,omitempty"`
		KeyBase64 *string `json:"key_base64,omitempty"`
		By        int64   `json:"by"`
	}{k.Text, k.Base64, i.By})
}

// Delete deletes a key or a range.
type Delete struct {
	Range
	// Prev asks for what was deleted.
	Prev bool
}

// MarshalJSON writes the delete as the server reads it.
func (d Delete) MarshalJSON() ([]byte, error) {
	return Marshal(struct {
		rangeJSON
		Prev bool `json:"prev,omitempty"`
	}{d.Range.wire(), d.Prev})
}

// Get reads a key or a range.
type Get struct {
	Range
	Revision  uint64
	Limit     int    // 0 means 100
	Order     string // "asc" or "desc", empty means asc
	Sort      string // "key", "version", "create", "mod" or "value", empty means key
	KeysOnly  bool
	Count     bool // the number of keys in the range as well
	CountOnly bool // nothing but it

	MinModRevision, MaxModRevision       uint64
	MinCreateRevision, MaxCreateRevision uint64
}

// MarshalJSON writes the get as the server reads it.
func (g Get) MarshalJSON() ([]byte, error) {
	return Marshal(struct {
		rangeJSON
		Revision          uint64 `json:"revision,omitempty"`
		Limit             int    `json:"limit,omitempty"`
		Order             string `json:"order,omitempty"`
		Sort              string `json:"sort,omitempty"`
		KeysOnly          bool   `json:"keys_only,omitempty"`
		Count             bool   `json:"count,omitempty"`
		CountOnly         bool   `json:"count_only,omitempty"`
		MinModRevision    uint64 `json:"min_mod_revision,omitempty"`
		MaxModRevision    uint64 `json:"max_mod_revision,omitempty"`
		MinCreateRevision uint64 `json:"min_create_revision,omitempty"`
		MaxCreateRevision uint64 `json:"max_create_revision,omitempty"`
	}{
		g.Range.wire(), g.Revision, g.Limit, g.Order, g.Sort, g.KeysOnly, g.Count, g.CountOnly,
		g.MinModRevision, g.MaxModRevision, g.MinCreateRevision, g.MaxCreateRevision,
	})
}

// TxnResult is the answer to a transaction.
type TxnResult struct {
	Revision uint64 `json:"revision"`
	// Succeeded says that every compare held and Then was done.
	Succeeded bool `json:"succeeded"`
	// Results has one result for each operation that was done, in order.
	Results []OpResult `json:"results"`
}

// OpResult is the result of one operation; the field of its kind is set.
type OpResult struct {
	Put       *PutResult       `json:"put,omitempty"`
	Increment *IncrementResult `json:"increment,omitempty"`
	Delete    *DeleteResult    `json:"delete,omitempty"`
	Get       *List            `json:"get,omitempty"`
	Txn       *TxnResult       `json:"txn,omitempty"`
}

// IncrementResult is the result of an increment.
type IncrementResult struct {
	Revision uint64 `json:"revision"`
	Created  bool   `json:"created"`
	// Value is the new value.
	Value int64 `json:"value,string"`
	// Lease is the lease that the key has, if any.
	Lease string `json:"lease,omitempty"`
}

// BulkReport is a line of the answer to a bulk write. The last line has Done or
// Error.
type BulkReport struct {
	// Applied counts the leading lines of the request that were applied: it is the
	// number of the last one. Blank lines before that count.
	Applied uint64 `json:"applied"`
	// Revision is the store's revision after them; 0 while none were.
	Revision uint64 `json:"revision"`
	// Done is set on the last line: true if every line was applied.
	Done *bool `json:"done,omitempty"`
	// OutcomeUnknownLines counts the lines after the applied ones that may or
	// may not have been applied, all together or none.
	OutcomeUnknownLines uint64   `json:"outcome_unknown_lines,omitempty"`
	Error               *Problem `json:"error,omitempty"`
}
