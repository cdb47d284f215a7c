// Command manifests writes what virt-operator would install besides workloads: definitions,
// RBAC, webhook configurations and APIServices, each as a List in JSON.
//
// Usage: manifests FOLDER VERSION
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	virtv1 "kubevirt.io/api/core/v1"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/components"
	"kubevirt.io/kubevirt/pkg/virt-operator/resource/generate/install"
	"kubevirt.io/kubevirt/pkg/virt-operator/util"
)

const namespace = "kubevirt"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: manifests FOLDER VERSION")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func write(folder, version string) error {
	// The operator takes names and versions of everything from its own image.
	if err := os.Setenv("VIRT_OPERATOR_IMAGE", "registry.test/virt-operator:"+version); err != nil {
		return err
	}
	kubevirt := &virtv1.KubeVirt{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kubevirt"}}
	strategy, err := install.GenerateCurrentInstallStrategy(util.GetTargetConfigFromKV(kubevirt), "", namespace)
	if err != nil {
		return err
	}
	// The operator does not install its own definition; whoever installs the operator does.
	own, err := components.NewKubeVirtCrd()
	if err != nil {
		return err
	}
	lists := map[string][]any{
		"crds":        append([]any{own}, objects(strategy.CRDs())...),
		"apiservices": objects(strategy.APIServices()),
		"webhooks": append(
			objects(strategy.ValidatingWebhookConfigurations()),
			objects(strategy.MutatingWebhookConfigurations())...),
	}
	lists["rbac"] = append(lists["rbac"], objects(strategy.ServiceAccounts())...)
	lists["rbac"] = append(lists["rbac"], objects(strategy.ClusterRoles())...)
	lists["rbac"] = append(lists["rbac"], objects(strategy.ClusterRoleBindings())...)
	lists["rbac"] = append(lists["rbac"], objects(strategy.Roles())...)
	lists["rbac"] = append(lists["rbac"], objects(strategy.RoleBindings())...)
	for name, items := range lists {
		list := map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
		written, err := json.MarshalIndent(list, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, name+".json"), written, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func objects[T any](several []T) []any {
	found := make([]any, 0, len(several))
	for _, one := range several {
		found = append(found, one)
	}
	return found
}
