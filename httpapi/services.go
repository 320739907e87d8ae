package httpapi

import (
	"context"
	"math"

	"github.com/cairnkv/cairn/api"
	"github.com/cairnkv/cairn/coordination"
	"github.com/cairnkv/cairn/kv"
)

const (
	// maxRegistrationBytes bounds the body of a registration: all of a service's are
	// read together.
	maxRegistrationBytes = 64 << 10
	// maxTags bounds the tags, and the members of the metadata, of an instance.
	maxTags = 64
	// maxTagBytes bounds a tag, an address and a name in the metadata.
	maxTagBytes = 255
)

// register answers PUT /v1/services/{service}/{instance}.
func (x *exchange) register() {
	names := x.names(servicesPath, "")
	body, _ := x.readBody(maxRegistrationBytes)
	i := coordination.Instance{}
	if !x.bodyFailed {
		x.parseJSON(body, func(p *jsonParser) { x.registration(p, &i) })
	}
	if x.refused() {
		return
	}
	i.Service, i.Name = names[0], names[1]
	registered, created, err := x.s.recipes.Register(x.r.Context(), i)
	if err != nil {
		x.refuseRecipe(err)
		return
	}
	status := 200
	if created {
		status = 201
	}
	x.setLease(registered.Lease)
	x.sendValue(status, max(registered.ModRevision, x.revision()), wireInstance(&registered))
}

func (x *exchange) registration(p *jsonParser, i *coordination.Instance) {
	var lease, ttl bool
	p.object("a registration", func(name string) bool {
		switch name {
		case "address":
			i.Address = x.shortText(name, p.string())
		case "port":
			i.Port = int(p.uint(name, 0, math.MaxUint16))
		case "tags":
			p.array("the tags", func() {
				tag := x.shortText("a tag", p.string())
				if len(i.Tags) <= maxTags {
					i.Tags = append(i.Tags, tag)
				}
			})
		case "metadata":
			i.Metadata = map[string]string{}
			p.object("the metadata", func(name string) bool {
				value := string(p.string())
				if len(i.Metadata) <= maxTags {
					i.Metadata[x.shortText("a name of the metadata", []byte(name))] = value
				}
				return true
			})
		case "ttl_seconds":
			ms := p.millis(name, kv.MinLeaseTTLMillis, kv.MaxLeaseTTLMillis)
			i.TTLSeconds, ttl = float64(ms)/1000, true
		case "lease":
			if s := string(p.string()); !p.broken {
				i.Lease, lease = x.parseLease(name, s), true
			}
		default:
			return false
		}
		return true
	})
	if p.broken {
		return
	}
	x.checkLease("a registration", lease, ttl)
	if len(i.Tags) > maxTags || len(i.Metadata) > maxTags {
		x.failLimit(api.CodeInvalidArgument, maxTags, "a registration has at most %d tags and %d members of metadata", maxTags, maxTags)
	}
}

// shortText reports a text that is too long.
func (x *exchange) shortText(what string, s []byte) string {
	if len(s) > maxTagBytes {
		x.failLimit(api.CodeInvalidArgument, maxTagBytes, "%s has at most %d bytes", what, maxTagBytes)
	}
	return string(s)
}

// getInstance answers GET /v1/services/{service}/{instance}.
func (x *exchange) getInstance() {
	names := x.names(servicesPath, "")
	mode := x.readMode()
	v := x.view(&mode)
	if v == nil {
		return
	}
	defer v.Close()
	i, found, err := x.s.recipes.Instance(v, names[0], names[1])
	switch {
	case err != nil:
		x.refuseRead(err)
	case !found:
		x.fault = newFault(api.CodeKeyNotFound, "there is no such instance, or none that is alive")
		x.sendProblem(v.Revision())
	default:
		x.sendValue(200, v.Revision(), wireInstance(&i))
	}
}

// deregister answers DELETE /v1/services/{service}/{instance}.
func (x *exchange) deregister() {
	names := x.names(servicesPath, "")
	if x.refused() {
		return
	}
	deleted, revision, err := x.s.recipes.Deregister(x.r.Context(), names[0], names[1])
	if err != nil {
		x.refuseRecipe(err)
		return
	}
	answer := api.DeleteResult{Revision: revision}
	if deleted {
		answer.Deleted = 1
	}
	x.sendValue(200, revision, answer)
}

// listInstances answers GET /v1/services/{service}.
func (x *exchange) listInstances() {
	service := x.names(servicesPath, "")[0]
	mode := x.readMode()
	limit, after, tag := x.limitParam(), x.afterParam(), x.q.values[pTag]
	if x.q.present.has(pTag) && tag == "" {
		x.fail(api.CodeInvalidArgument, "tag is empty; leave it out to see all")
	}
	x.sendList(&mode, func(ctx context.Context, v View) (any, error) {
		found, more, err := x.s.recipes.Instances(ctx, v, service, tag, after, limit)
		answer := api.Instances{Revision: v.Revision(), Instances: []api.Instance{}, More: more}
		for i := range found {
			answer.Instances = append(answer.Instances, wireInstance(&found[i]))
		}
		return answer, err
	})
}

// listServices answers GET /v1/services.
func (x *exchange) listServices() {
	mode := x.readMode()
	limit, after := x.limitParam(), x.afterParam()
	x.sendList(&mode, func(ctx context.Context, v View) (any, error) {
		names, more, err := x.s.recipes.Services(ctx, v, after, limit)
		if names == nil {
			names = []string{}
		}
		return api.Services{Revision: v.Revision(), Services: names, More: more}, err
	})
}

// afterParam reads the name after which a list goes on, or nothing.
func (x *exchange) afterParam() string {
	if !x.q.present.has(pAfter) {
		return ""
	}
	after := x.q.values[pAfter]
	if err := coordination.CheckName(after); err != nil {
		x.fail(api.CodeInvalidArgument, "after is %.100q: %v", after, err)
	}
	return after
}

func wireInstance(i *coordination.Instance) api.Instance {
	return api.Instance{
		Service: i.Service, Instance: i.Name, Address: i.Address, Port: i.Port, Tags: i.Tags, Metadata: i.Metadata,
		TTLSeconds: i.TTLSeconds, Lease: i.Lease.String(),
		CreateRevision: i.CreateRevision, ModRevision: i.ModRevision, ModifiedAt: api.Time{Time: i.At},
	}
}
