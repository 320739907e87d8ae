package main

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// grpcSession speaks etcd's own protocol through etcd's own stubs. Messages are
// made once and filled anew; what encoding them costs is part of the protocol.
type grpcSession struct {
	ctx  context.Context // ends all requests of the measurement; one each would cost a timer each
	kv   pb.KVClient
	data *dataset

	lease    pb.LeaseClient
	renewals pb.Lease_LeaseKeepAliveClient // nil until the first renewal

	key      [keySize]byte
	putting  pb.PutRequest
	ranging  pb.RangeRequest
	txn      pb.TxnRequest
	txnPuts  [txnOps]pb.PutRequest
	txnKeys  [txnOps][keySize]byte
	txnItems []*pb.RequestOp
	values   []byte // of a transaction
}

// dialGRPC opens sessions that share connections, at most so many: over one
// connection, requests of many goroutines wait for one another; over one for
// each, nothing is sent together.
func dialGRPC(data *dataset, connections int) dialer {
	return func(ctx context.Context, addr string, n int) (*clients, error) {
		c := &clients{}
		var conns []*grpc.ClientConn
		c.close = func() {
			for _, conn := range conns {
				_ = conn.Close() // says only that it was closed before
			}
		}
		for range min(n, connections) {
			conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
			if err != nil {
				c.close()
				return nil, err
			}
			conns = append(conns, conn)
		}
		for i := range n {
			c.sessions = append(c.sessions, newGRPCSession(ctx, conns[i%len(conns)], data))
		}
		return c, nil
	}
}

func newGRPCSession(ctx context.Context, conn *grpc.ClientConn, data *dataset) *grpcSession {
	s := &grpcSession{ctx: ctx, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), data: data}
	s.putting.Key = s.key[:]
	s.ranging.Key = s.key[:]
	for i := range s.txnPuts {
		s.txnPuts[i].Key = s.txnKeys[i][:]
		s.txnItems = append(s.txnItems, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &s.txnPuts[i]}})
	}
	return s
}

func (s *grpcSession) put(key int, value []byte) error {
	putKey(s.key[:], key)
	s.putting.Value = value
	_, err := s.kv.Put(s.ctx, &s.putting)
	return err
}

func (s *grpcSession) get(key int, stale bool) error {
	putKey(s.key[:], key)
	s.ranging.Serializable = stale
	answer, err := s.kv.Range(s.ctx, &s.ranging)
	if err != nil {
		return err
	}
	if len(answer.Kvs) != 1 || string(answer.Kvs[0].Value) != string(s.data.loaded(key)) {
		return fmt.Errorf("get: %d keys, or another value", len(answer.Kvs))
	}
	return nil
}

func (s *grpcSession) list(group int) error {
	var end [prefixSize]byte
	putPrefix(s.key[:], group)
	copy(end[:], s.key[:])
	end[prefixSize-1]++ // the first key behind all that have the prefix
	answer, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: s.key[:prefixSize], RangeEnd: end[:], Limit: groupSize})
	if err != nil {
		return err
	}
	if len(answer.Kvs) != groupSize {
		return fmt.Errorf("list: %d keys", len(answer.Kvs))
	}
	return nil
}

func (s *grpcSession) batch() int { return txnOps }

func (s *grpcSession) load(keys []int) error { return s.loadValues(keys, s.data.loaded) }

func (s *grpcSession) loadValues(keys []int, value func(int) []byte) error {
	s.values = s.values[:0]
	for i, key := range keys {
		putKey(s.txnKeys[i][:], key)
		at := len(s.values)
		s.values = append(s.values, value(key)...)
		s.txnPuts[i].Value = s.values[at:]
	}
	s.txn.Success = s.txnItems[:len(keys)]
	answer, err := s.kv.Txn(s.ctx, &s.txn)
	if err == nil && !answer.Succeeded {
		err = errors.New("load: the transaction did not succeed")
	}
	return err
}
