package kv

import (
	"bytes"
	"fmt"
)

// CheckKey reports why key can't be a key.
func CheckKey(key []byte) error {
	if len(key) == 0 {
		return fmt.Errorf("a key has at least one byte")
	}
	if len(key) > MaxKeyBytes {
		return fmt.Errorf("a key has at most %d bytes, this one has %d", MaxKeyBytes, len(key))
	}
	return nil
}

// Ops counts the operations of the transaction through all levels.
func (t *Txn) Ops() int {
	n := 0
	for _, branch := range [][]Op{t.Then, t.Else} {
		n += len(branch)
		for i := range branch {
			if branch[i].Txn != nil {
				n += branch[i].Txn.Ops()
			}
		}
	}
	return n
}

// footprint is what one path through a transaction writes.
type footprint struct {
	keys    [][]byte // puts and increments
	deletes []Range
}

// CheckDuplicates reports the first key that one run of the transaction could
// write twice: put twice, or put inside a range that it also deletes. The two
// branches of a transaction exclude each other and may write the same keys;
// deletes may overlap. The work grows with the square of the operations, which
// [MaxTxnOps] bounds.
func (t *Txn) CheckDuplicates() error {
	for _, branch := range [][]Op{t.Then, t.Else} {
		if _, err := branchFootprint(branch); err != nil {
			return err
		}
	}
	return nil
}

func branchFootprint(branch []Op) (footprint, error) {
	var all footprint
	for i := range branch {
		var parts []footprint
		switch op := &branch[i]; op.Type {
		case OpPut, OpIncrement:
			if op.Sequence {
				continue // what its key is shows when it is applied
			}
			parts = []footprint{{keys: [][]byte{op.Key}}}
		case OpDelete:
			parts = []footprint{{deletes: []Range{op.Range}}}
		case OpTxn:
			then, err := branchFootprint(op.Txn.Then)
			if err != nil {
				return all, err
			}
			otherwise, err := branchFootprint(op.Txn.Else)
			if err != nil {
				return all, err
			}
			// Each against what stands beside the nested transaction, not
			// against the other.
			parts = []footprint{then, otherwise}
		}
		for _, p := range parts {
			if err := all.conflict(p); err != nil {
				return all, err
			}
		}
		for _, p := range parts {
			all.keys = append(all.keys, p.keys...)
			all.deletes = append(all.deletes, p.deletes...)
		}
	}
	return all, nil
}

// conflict reports a key that both footprints write.
func (f *footprint) conflict(o footprint) error {
	for _, k := range o.keys {
		for _, have := range f.keys {
			if bytes.Equal(k, have) {
				return duplicateError(k)
			}
		}
		for _, d := range f.deletes {
			if d.Contains(k) {
				return duplicateError(k)
			}
		}
	}
	for _, d := range o.deletes {
		for _, k := range f.keys {
			if d.Contains(k) {
				return duplicateError(k)
			}
		}
	}
	return nil
}

func duplicateError(key []byte) error {
	return fmt.Errorf("key %.100q is written twice by this transaction", key)
}
