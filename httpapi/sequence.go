package httpapi

import (
	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/kv"
)

// postSequence answers POST on a key that is the prefix of a sequence: it creates
// the next key. Its number is the revision of the transaction that creates it, so
// it is known as soon as that is applied, and is never given again.
func (x *exchange) postSequence(prefix []byte) {
	f := form{base64: x.base64Param()}
	if !x.boolParam(pSequence) {
		x.fail(api.CodeInvalidArgument, "POST on a key creates the next key of a sequence, and must say so: sequence=true")
	}
	const most = kv.MaxKeyBytes - kv.SequenceDigits
	if len(prefix) > most && len(prefix) <= kv.MaxKeyBytes {
		x.failLimit(api.CodeKeyTooLarge, most, "the prefix of a sequence has at most %d bytes, this one has %d", most, len(prefix))
	}
	op := &x.ops[0]
	*op = kv.Op{Type: kv.OpPut, Key: prefix, Sequence: true}
	body := x.readPut(op)
	if x.refused() {
		return
	}
	r := x.proposeOps(nil, nil, 1, body)
	if r == nil {
		return
	}
	o := &r.Ops[0]
	key := kv.SequenceKey(prefix, r.Revision)
	start := len(x.text)
	x.text = appendPathEscaped(append(x.text, keyPath...), key)
	x.lines = append(x.lines, headerLine{"Location", start, len(x.text)})
	x.setTag(r.Revision, false)
	x.setLease(o.Lease)
	x.out = appendUint(x.out[:0], `{"revision":`, r.Revision)
	x.out = appendBytes(append(x.out, ','), "key", key, f.base64)
	if o.Lease != (kv.LeaseID{}) {
		x.out = append(x.out, `,"lease":"`...)
		x.out = append(appendLease(x.out, o.Lease), '"')
	}
	x.out = append(x.out, '}')
	x.sendJSON(201, r.Revision)
}

// appendPathEscaped appends a key as it stands in a path.
func appendPathEscaped(b, key []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range key {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9',
			c == '-', c == '.', c == '_', c == '~', c == '/':
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}
