// A bare admission webhook, as one would write it in Go without any framework: net/http, typed
// encoding/json, what it must know in memory. It does two small jobs that are nearest to what the
// guard does: it adds a node selector to a migration's target pod, and it refuses a migration whose
// VM no other node can take.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
)

const (
	created       = "kubevirt.io/created-by"
	domain        = "kubevirt.io/domain"
	migrationUID  = "kubevirt.io/migrationJobUID"
	hostModel     = "host-model-cpu.node.kubevirt.io/"
	required      = "host-model-required-features.node.kubevirt.io/"
	feature       = "cpu-feature.node.kubevirt.io/"
	migrateModel  = "cpu-model-migration.node.kubevirt.io/"
	vendor        = "cpu-vendor.node.kubevirt.io/"
	largestBody   = 7 << 20
	namesRefusals = 4
)

type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type groupVersionKind struct {
	Group   string `json:"group"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
}

type request struct {
	UID       string           `json:"uid"`
	Kind      groupVersionKind `json:"kind"`
	Namespace string           `json:"namespace"`
	Name      string           `json:"name"`
	Operation string           `json:"operation"`
	UserInfo  struct {
		Username string   `json:"username"`
		Groups   []string `json:"groups"`
	} `json:"userInfo"`
	Object json.RawMessage `json:"object"`
	DryRun *bool           `json:"dryRun"`
}

type response struct {
	UID       string  `json:"uid"`
	Allowed   bool    `json:"allowed"`
	Status    *status `json:"status,omitempty"`
	Patch     []byte  `json:"patch,omitempty"`
	PatchType string  `json:"patchType,omitempty"`
}

type status struct {
	Status  string `json:"status"`
	Code    int    `json:"code"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	UID         string            `json:"uid"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type resources struct {
	Requests map[string]string `json:"requests"`
	Limits   map[string]string `json:"limits"`
}

type container struct {
	Name      string    `json:"name"`
	Image     string    `json:"image"`
	Resources resources `json:"resources"`
}

type pod struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		NodeName       string            `json:"nodeName"`
		NodeSelector   map[string]string `json:"nodeSelector"`
		InitContainers []container       `json:"initContainers"`
		Containers     []container       `json:"containers"`
		Tolerations    []struct {
			Key      string `json:"key"`
			Operator string `json:"operator"`
			Value    string `json:"value"`
			Effect   string `json:"effect"`
		} `json:"tolerations"`
	} `json:"spec"`
}

type migration struct {
	Metadata metadata `json:"metadata"`
	Spec     struct {
		VMIName           string            `json:"vmiName"`
		AddedNodeSelector map[string]string `json:"addedNodeSelector"`
	} `json:"spec"`
}

type instance struct {
	Metadata metadata `json:"metadata"`
	Status   struct {
		NodeName string `json:"nodeName"`
	} `json:"status"`
}

type node struct {
	Metadata metadata `json:"metadata"`
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value string `json:"value"`
}

type facts struct {
	nodes     []node
	byName    map[string]node
	instances map[string]instance
}

func readFacts(path string) (*facts, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	found := &facts{byName: map[string]node{}, instances: map[string]instance{}}
	for _, item := range list.Items {
		var of struct {
			Kind string `json:"kind"`
		}
		if err := json.Unmarshal(item, &of); err != nil {
			return nil, err
		}
		switch of.Kind {
		case "Node":
			var one node
			if err := json.Unmarshal(item, &one); err != nil {
				return nil, err
			}
			found.nodes = append(found.nodes, one)
			found.byName[one.Metadata.Name] = one
		case "VirtualMachineInstance":
			var one instance
			if err := json.Unmarshal(item, &one); err != nil {
				return nil, err
			}
			found.instances[one.Metadata.Namespace+"/"+one.Metadata.Name] = one
		}
	}
	return found, nil
}

// demands returns the labels that a host-model guest needs where it goes.
func demands(source node) map[string]string {
	wanted := map[string]string{}
	for key := range source.Metadata.Labels {
		switch {
		case strings.HasPrefix(key, required):
			wanted[feature+key[len(required):]] = "true"
		case strings.HasPrefix(key, hostModel):
			wanted[migrateModel+key[len(hostModel):]] = "true"
		case strings.HasPrefix(key, vendor):
			wanted[key] = "true"
		}
	}
	return wanted
}

func (f *facts) mutate(r *request) (*response, error) {
	answer := &response{UID: r.UID, Allowed: true}
	var p pod
	if err := json.Unmarshal(r.Object, &p); err != nil {
		return nil, err
	}
	if p.Metadata.Labels[migrationUID] == "" {
		return answer, nil
	}
	vmi, known := f.instances[r.Namespace+"/"+p.Metadata.Annotations[domain]]
	if !known || vmi.Metadata.UID != p.Metadata.Labels[created] {
		return answer, nil
	}
	var patch []operation
	for key, value := range demands(f.byName[vmi.Status.NodeName]) {
		if _, there := p.Spec.NodeSelector[key]; !there {
			path := strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
			patch = append(patch, operation{"add", "/spec/nodeSelector/" + path, value})
		}
	}
	if len(patch) == 0 {
		return answer, nil
	}
	text, err := json.Marshal(patch)
	answer.Patch, answer.PatchType = text, "JSONPatch"
	return answer, err
}

func (f *facts) validate(r *request) (*response, error) {
	answer := &response{UID: r.UID, Allowed: true}
	var m migration
	if err := json.Unmarshal(r.Object, &m); err != nil {
		return nil, err
	}
	vmi, known := f.instances[r.Namespace+"/"+m.Spec.VMIName]
	if !known {
		return answer, nil
	}
	wanted := demands(f.byName[vmi.Status.NodeName])
	for key, value := range m.Spec.AddedNodeSelector {
		wanted[key] = value
	}
	var names []string
	for _, one := range f.nodes {
		if one.Metadata.Name == vmi.Status.NodeName {
			continue
		}
		lacks := ""
		for key, value := range wanted {
			if one.Metadata.Labels[key] != value {
				lacks = key
				break
			}
		}
		if lacks == "" {
			return answer, nil
		}
		if len(names) < namesRefusals {
			names = append(names, fmt.Sprintf("%s lacks %s", one.Metadata.Name, lacks))
		}
	}
	answer.Allowed = false
	answer.Status = &status{
		Status: "Failure", Code: http.StatusForbidden, Reason: "Forbidden",
		Message: fmt.Sprintf("migration of VM %s/%s from node %s refused: no other node can take it: %s",
			r.Namespace, m.Spec.VMIName, vmi.Status.NodeName, strings.Join(names, "; ")),
	}
	return answer, nil
}

func handler(decide func(*request) (*response, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var asked review
		if err := json.Unmarshal(body, &asked); err != nil || asked.Request == nil {
			http.Error(w, "not an AdmissionReview", http.StatusBadRequest)
			return
		}
		answer, err := decide(asked.Request)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		text, err := json.Marshal(review{
			APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview", Response: answer,
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write(text); err != nil {
			log.Print(err)
		}
	}
}

func main() {
	certificate := flag.String("cert", "", "certificate, in PEM")
	key := flag.String("key", "", "its key, in PEM")
	inventory := flag.String("inventory", "", "a List of nodes and VMIs, in JSON")
	flag.Parse()
	found, err := readFacts(*inventory)
	if err != nil {
		log.Fatal(err)
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /mutate", handler(found.mutate))
	routes.HandleFunc("POST /validate", handler(found.validate))
	server := &http.Server{
		Handler: routes,
		// HTTP/1.1 and TLS 1.3, like the server that it is compared with.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS13},
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(server.ServeTLS(listener, *certificate, *key))
}
