package main

import (
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (s *grpcSession) grant(lease int, ttl time.Duration) error {
	answer, err := s.lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: etcdLeaseID(lease), TTL: int64(ttl / time.Second)})
	if err == nil && (answer.Error != "" || answer.ID == 0) {
		err = fmt.Errorf("grant: lease %d, %s", answer.ID, answer.Error)
	}
	return err
}

func (s *grpcSession) renew(lease int) error {
	one := [1]int{lease}
	return s.renewMany(one[:])
}

// renewMany sends renewals one behind the other over the session's stream and
// takes in the answers meanwhile, which come in the same order.
func (s *grpcSession) renewMany(leases []int) error {
	if s.renewals == nil {
		stream, err := s.lease.LeaseKeepAlive(s.ctx)
		if err != nil {
			return err
		}
		s.renewals = stream
	}
	if len(leases) == 1 {
		if err := s.renewals.Send(&pb.LeaseKeepAliveRequest{ID: etcdLeaseID(leases[0])}); err != nil {
			return err
		}
		return s.renewed(leases)
	}
	sent := make(chan error, 1)
	go func() {
		for _, lease := range leases {
			if err := s.renewals.Send(&pb.LeaseKeepAliveRequest{ID: etcdLeaseID(lease)}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	if err := s.renewed(leases); err != nil {
		// The stream is of no use any more; its end ends the sender, too.
		_ = s.renewals.CloseSend()
		return err
	}
	return <-sent
}

func (s *grpcSession) renewed(leases []int) error {
	for _, lease := range leases {
		answer, err := s.renewals.Recv()
		if err != nil {
			return err
		}
		if answer.ID != etcdLeaseID(lease) || answer.TTL <= 0 {
			return fmt.Errorf("renewal of lease %d: lease %d has %d s", etcdLeaseID(lease), answer.ID, answer.TTL)
		}
	}
	return nil
}

func (s *grpcSession) putLeased(key, lease int) error {
	putKey(s.key[:], key)
	_, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: s.key[:], Value: s.data.loaded(key), Lease: etcdLeaseID(lease)})
	return err
}
