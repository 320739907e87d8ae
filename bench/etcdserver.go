package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// commandEtcdServer is the argument that makes this program etcd's server.
const commandEtcdServer = "etcd-server"

// etcdQuota is large enough never to matter. It is Cairn's default.
const etcdQuota = 16 << 30

// etcdServer runs a member of etcd, the only one unless others are named, until it
// is told to end: the defaults of its own program, but for addresses and quota.
// fsync is among the defaults.
func etcdServer(args []string) error {
	if len(args) != 3 && len(args) != 5 {
		return errors.New("usage: " + commandEtcdServer + " data-dir client-address peer-address [name initial-cluster]")
	}
	client := []url.URL{{Scheme: "http", Host: args[1]}}
	peer := []url.URL{{Scheme: "http", Host: args[2]}}
	cfg := embed.NewConfig()
	cfg.Dir = args[0]
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = client, client
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = peer, peer
	if len(args) == 5 {
		cfg.Name, cfg.InitialCluster = args[3], args[4]
	} else {
		cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	}
	cfg.QuotaBackendBytes = etcdQuota
	cfg.LogOutputs = []string{"stderr"}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer etcd.Close()
	select {
	case <-stop:
		return nil
	case err := <-etcd.Err():
		return err
	}
}

// rangeBytes is a linearizable read through the gateway. It is answered with 200
// whether or not the key is there.
func rangeBytes(addr, key string) []byte {
	return postBytes(addr, "/v3/kv/range", `{"key":"`+base64.StdEncoding.EncodeToString([]byte(key))+`"}`)
}

// getBytes is a plain GET.
func getBytes(addr, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, addr)
}
