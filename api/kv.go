package api

import (
	"encoding/json"
	"time"
)

// TimeLayout is how a time is written in JSON.
const TimeLayout = "2006-01-02T15:04:05.000Z07:00"

// Time is a time that is written in UTC with milliseconds.
type Time struct{ time.Time }

// MarshalJSON writes the time in TimeLayout. It reads any RFC 3339 time.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"`+TimeLayout+`"`), nil
}

// Entry is one version of a key.
type Entry struct {
	Key []byte
	// Value is nil when only the key was asked for.
	Value          []byte
	ContentType    string
	CreateRevision uint64
	ModRevision    uint64
	Version        uint64
	// Lease is the ULID of the lease that the key is attached to, or empty.
	Lease      string
	ModifiedAt time.Time
}

type entryJSON struct {
	Key            *string `json:"key,omitempty"`
	KeyBase64      *string `json:"key_base64,omitempty"`
	Value          *string `json:"value,omitempty"`
	ValueBase64    *string `json:"value_base64,omitempty"`
	ContentType    string  `json:"content_type,omitempty"`
	CreateRevision uint64  `json:"create_revision,omitempty"`
	ModRevision    uint64  `json:"mod_revision"`
	Version        uint64  `json:"version,omitempty"`
	Lease          string  `json:"lease,omitempty"`
	ModifiedAt     string  `json:"modified_at"`
}

func (e *Entry) wire() entryJSON {
	k, v := split(e.Key), split(e.Value)
	return entryJSON{
		k.Text, k.Base64, v.Text, v.Base64, e.ContentType,
		e.CreateRevision, e.ModRevision, e.Version, e.Lease, e.ModifiedAt.UTC().Format(TimeLayout),
	}
}

func (w *entryJSON) entry() (e Entry, err error) {
	if e.Key, err = join("key", pair{w.Key, w.KeyBase64}); err != nil {
		return e, err
	}
	if e.Value, err = join("value", pair{w.Value, w.ValueBase64}); err != nil {
		return e, err
	}
	if w.ModifiedAt != "" {
		if e.ModifiedAt, err = time.Parse(time.RFC3339Nano, w.ModifiedAt); err != nil {
			return e, err
		}
	}
	e.ContentType, e.Lease = w.ContentType, w.Lease
	e.CreateRevision, e.ModRevision, e.Version = w.CreateRevision, w.ModRevision, w.Version
	return e, nil
}

// MarshalJSON writes the entry as the server does.
func (e Entry) MarshalJSON() ([]byte, error) { return json.Marshal(e.wire()) }

// UnmarshalJSON reads either form of key and value.
func (e *Entry) UnmarshalJSON(b []byte) (err error) {
	var w entryJSON
	if err := decode("entry", b, &w); err != nil {
		return err
	}
	*e, err = w.entry()
	return err
}

// PutResult is the answer to a put, alone or in a transaction.
type PutResult struct {
	Revision uint64 `json:"revision"`
	// Created says that the key did not exist before.
	Created bool `json:"created"`
	// Lease is the lease that the key has now, if any.
	Lease string `json:"lease,omitempty"`
	// Prev is what was replaced, when it was asked for and there was one.
	Prev *Entry `json:"prev,omitempty"`
}

// SequenceResult is the answer to the creation of the next key of a sequence.
type SequenceResult struct {
	Revision uint64
	// Key is the key that was created: the prefix and the revision in 20 digits.
	Key []byte
	// Lease is the lease that the key has, if any.
	Lease string
}

type sequenceJSON struct {
	Revision  uint64  `json:"revision"`
	Key       *string `json:"key,omitempty"`
	KeyBase64 *string `json:"key_base64,omitempty"`
	Lease     string  `json:"lease,omitempty"`
}

// MarshalJSON writes the result as the server does.
func (r SequenceResult) MarshalJSON() ([]byte, error) {
	k := split(r.Key)
	return json.Marshal(sequenceJSON{r.Revision, k.Text, k.Base64, r.Lease})
}

// UnmarshalJSON reads either form of the key.
func (r *SequenceResult) UnmarshalJSON(b []byte) error {
	var w sequenceJSON
	if err := decode("sequence key", b, &w); err != nil {
		return err
	}
	key, err := join("key", pair{w.Key, w.KeyBase64})
	*r = SequenceResult{w.Revision, key, w.Lease}
	return err
}

// DeleteResult is the answer to a delete of a key or of a range.
type DeleteResult struct {
	Revision uint64 `json:"revision"`
	Deleted  uint64 `json:"deleted"`
	// Prev is what was deleted, when it was asked for.
	Prev []Entry `json:"prev,omitempty"`
}

// List is the answer to a list, and to a get in a transaction.
type List struct {
	// Revision is the revision whose state was read; all pages of a list have
	// the same.
	Revision       uint64
	Entries        []Entry
	CommonPrefixes [][]byte
	// More says that the limit cut the list. NextCursor then continues it,
	// unless it was sorted by something else than the key.
	More       bool
	NextCursor string
	// Count is the number of keys in the whole range, when it was asked for.
	Count *uint64
}

type listJSON struct {
	Revision             uint64   `json:"revision"`
	Entries              []Entry  `json:"entries"`
	CommonPrefixes       []string `json:"common_prefixes,omitempty"`
	CommonPrefixesBase64 []string `json:"common_prefixes_base64,omitempty"`
	More                 bool     `json:"more"`
	NextCursor           string   `json:"next_cursor,omitempty"`
	Count                *uint64  `json:"count,omitempty"`
}

// MarshalJSON writes the list as the server does.
func (l List) MarshalJSON() ([]byte, error) {
	text, b64 := splitList(l.CommonPrefixes)
	entries := l.Entries
	if entries == nil {
		entries = []Entry{}
	}
	return json.Marshal(listJSON{l.Revision, entries, text, b64, l.More, l.NextCursor, l.Count})
}

// UnmarshalJSON reads either form of the common prefixes.
func (l *List) UnmarshalJSON(b []byte) error {
	var w listJSON
	if err := decode("list", b, &w); err != nil {
		return err
	}
	prefixes, err := joinList("common_prefixes", w.CommonPrefixes, w.CommonPrefixesBase64)
	if err != nil {
		return err
	}
	*l = List{w.Revision, w.Entries, prefixes, w.More, w.NextCursor, w.Count}
	return nil
}

// Types of a change in a history.
const (
	TypePut    = "put"
	TypeDelete = "delete"
)

// Change is one version of a key in its history. Of a delete the entry has the
// revision and the time alone.
type Change struct {
	// Type is put or delete.
	Type string
	// Reason is, of a delete, deleted, expired or revoked.
	Reason string
	Entry
}

type changeJSON struct {
	Type string `json:"type"`
	entryJSON
	Reason string `json:"reason,omitempty"`
}

// MarshalJSON writes the change as the server does.
func (c Change) MarshalJSON() ([]byte, error) {
	return json.Marshal(changeJSON{c.Type, c.Entry.wire(), c.Reason})
}

// UnmarshalJSON reads a put with all of its entry, or a delete.
func (c *Change) UnmarshalJSON(b []byte) error {
	var w changeJSON
	if err := decode("change", b, &w); err != nil {
		return err
	}
	e, err := w.entry()
	if err != nil {
		return err
	}
	*c = Change{w.Type, w.Reason, e}
	return nil
}

// History is the answer to the history of a key, newest first.
type History struct {
	Key        []byte
	Versions   []Change
	NextCursor string
}

type historyJSON struct {
	Key        *string  `json:"key,omitempty"`
	KeyBase64  *string  `json:"key_base64,omitempty"`
	Versions   []Change `json:"versions"`
	NextCursor string   `json:"next_cursor,omitempty"`
}

// MarshalJSON writes the history as the server does.
func (h History) MarshalJSON() ([]byte, error) {
	k := split(h.Key)
	return json.Marshal(historyJSON{k.Text, k.Base64, h.Versions, h.NextCursor})
}

// UnmarshalJSON reads either form of the key.
func (h *History) UnmarshalJSON(b []byte) error {
	var w historyJSON
	if err := decode("history", b, &w); err != nil {
		return err
	}
	key, err := join("key", pair{w.Key, w.KeyBase64})
	*h = History{key, w.Versions, w.NextCursor}
	return err
}
