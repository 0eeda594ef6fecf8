// Package azure reads the metadata of Azure and tells the fabric that the
// machine is up, without which Azure gives it up after a while, or why it is
// not, which Azure then shows to whoever made the machine.
//
// userData comes from the metadata service, customData from the file
// ovf-env.xml on a CD that Azure attaches until the machine has reported.
// Sources: learn.microsoft.com/azure/virtual-machines/instance-metadata-service
// and the goal state and health reports of the wire server (github.com/Azure/
// WALinuxAgent, azurelinuxagent/common/protocol/wire.py). Package source starts
// Fetch once the network is up and ReadOVF for a CD; the boot calls Report.
package azure

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"strings"

	"keelson/init/dmi"
	"keelson/init/metadata"
	"keelson/init/userdata"
)

// Name is what messages call this source.
const Name = "Azure metadata"

// OVF is the file on the CD.
const OVF = "ovf-env.xml"

const (
	instance = "http://169.254.169.254/metadata/instance?api-version=2021-08-01&format=json"
	wire     = "http://168.63.129.16/machine"
)

// Here tells by the asset tag that every machine of Azure has.
func Here(id dmi.Identity) bool { return id.ChassisTag == "7783-7084-3265-9085-8269-3286-77" }

// Fetch asks the metadata service.
func Fetch(ctx context.Context, c *metadata.Client) (docs userdata.Documents, err error) {
	data, err := c.Get(ctx, instance, map[string]string{"Metadata": "true"})
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	var answer struct {
		Compute struct {
			ID       string `json:"vmId"`
			Name     string `json:"name"`
			UserData string `json:"userData"`
			Profile  struct {
				ComputerName string `json:"computerName"`
			} `json:"osProfile"`
		} `json:"compute"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	vm := answer.Compute
	user, err := metadata.Base64("userData", vm.UserData)
	if err != nil {
		return docs, fmt.Errorf("%s: %w", Name, err)
	}
	hostname := vm.Profile.ComputerName
	if hostname == "" {
		hostname = vm.Name
	}
	docs.Meta = metadata.Meta(Name, vm.ID, hostname)
	docs.User = metadata.Document(Name, "user-data", user)
	return docs, nil
}

// ReadOVF takes host name and custom data from the CD's file.
func ReadOVF(source string, data []byte) (docs userdata.Documents, err error) {
	var file struct {
		XMLName xml.Name `xml:"Environment"`
		Section struct {
			Set struct {
				HostName   string `xml:"HostName"`
				CustomData string `xml:"CustomData"`
				UserData   string `xml:"UserData"`
			} `xml:"LinuxProvisioningConfigurationSet"`
		} `xml:"ProvisioningSection"`
	}
	if err := xml.Unmarshal(data, &file); err != nil {
		return docs, fmt.Errorf("%s: %s: %w", source, OVF, err)
	}
	set := file.Section.Set
	text := set.UserData
	if text == "" {
		text = set.CustomData
	}
	user, err := metadata.Base64("CustomData", text)
	if err != nil {
		return docs, fmt.Errorf("%s: %s: %w", source, OVF, err)
	}
	docs.Meta = metadata.Meta(source, "", set.HostName)
	docs.User = metadata.Document(source, "user-data", user)
	return docs, nil
}

// Report tells the fabric that the machine is ready or, where failure says why,
// that it could not be provisioned: it asks for the goal state, which names the
// machine, and posts its health. A machine that has failed may be ready later.
func Report(ctx context.Context, c *metadata.Client, failure string) error {
	header := map[string]string{"X-Ms-Agent-Name": "keelson", "X-Ms-Version": "2012-11-30"}
	data, err := c.Get(ctx, wire+"/?comp=goalstate", header)
	if err != nil {
		return fmt.Errorf("goal state: %w", err)
	}
	var goal goalState
	if err := xml.Unmarshal(data, &goal); err != nil {
		return fmt.Errorf("goal state: %w", err)
	}
	if goal.Container.ID == "" || len(goal.Container.Instances) == 0 {
		return fmt.Errorf("goal state: names no container or no instance")
	}
	body, err := health(goal, failure)
	if err != nil {
		return err
	}
	header["Content-Type"] = "text/xml;charset=utf-8"
	if _, err := c.Do(ctx, metadata.Request{Method: "POST", URL: wire + "?comp=health", Header: header, Body: body}); err != nil {
		return fmt.Errorf("health report: %w", err)
	}
	return nil
}

type goalState struct {
	Incarnation string `xml:"Incarnation"`
	Container   struct {
		ID        string `xml:"ContainerId"`
		Instances []struct {
			ID string `xml:"InstanceId"`
		} `xml:"RoleInstanceList>RoleInstance"`
	} `xml:"Container"`
}

// maxDescription is what the fabric keeps of a reason (cloud-init's
// HEALTH_REPORT_DESCRIPTION_TRIM_LEN).
const maxDescription = 512

// health renders the report. An element that is nil is not in it.
func health(goal goalState, failure string) ([]byte, error) {
	type details struct {
		SubStatus   string
		Description string
	}
	type role struct {
		InstanceID string   `xml:"InstanceId"`
		State      string   `xml:"Health>State"`
		Details    *details `xml:"Health>Details"`
	}
	r := role{InstanceID: goal.Container.Instances[0].ID, State: "Ready"}
	if failure != "" {
		failure = strings.ToValidUTF8(failure[:min(len(failure), maxDescription)], "")
		r.State, r.Details = "NotReady", &details{SubStatus: "ProvisioningFailed", Description: failure}
	}
	report := struct {
		XMLName     xml.Name `xml:"Health"`
		Incarnation string   `xml:"GoalStateIncarnation"`
		ContainerID string   `xml:"Container>ContainerId"`
		Roles       []role   `xml:"Container>RoleInstanceList>Role"`
	}{Incarnation: goal.Incarnation, ContainerID: goal.Container.ID, Roles: []role{r}}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := xml.NewEncoder(&b).Encode(report); err != nil {
		return nil, fmt.Errorf("health report: %w", err)
	}
	return b.Bytes(), nil
}
