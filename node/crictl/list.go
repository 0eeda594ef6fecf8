package crictl

import (
	"context"
	"flag"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// listing are the flags of the commands that list.
type listing struct {
	quiet, all bool
	output     string
	name, pod  string
}

func (t *tool) listing(name string, args []string) (listing, error) {
	var l listing
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.BoolVar(&l.quiet, "q", false, "only IDs")
	flags.BoolVar(&l.all, "a", false, "stopped ones too")
	flags.StringVar(&l.output, "o", "table", "json or table")
	flags.StringVar(&l.name, "name", "", "only names that contain this")
	flags.StringVar(&l.pod, "pod", "", "only of this pod")
	if err := t.parse(flags, args, 0, 0); err != nil {
		return listing{}, err
	}
	if l.output != "json" && l.output != "table" {
		return listing{}, fmt.Errorf("output %q: json and table are there", l.output)
	}
	return l, nil
}

func containers(ctx context.Context, t *tool, args []string) error {
	l, err := t.listing("ps", args)
	if err != nil {
		return err
	}
	filter := &runtimeapi.ContainerFilter{PodSandboxId: l.pod}
	if !l.all {
		filter.State = &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	}
	all, err := t.runtime.ListContainers(ctx, filter)
	if err != nil {
		return err
	}
	kept := &runtimeapi.ListContainersResponse{}
	for _, c := range all {
		if strings.Contains(c.GetMetadata().GetName(), l.name) {
			kept.Containers = append(kept.Containers, c)
		}
	}
	sort.Slice(kept.Containers, func(a, b int) bool { return kept.Containers[a].CreatedAt > kept.Containers[b].CreatedAt })
	table := [][]string{{"CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD"}}
	for _, c := range kept.Containers {
		state := strings.TrimPrefix(c.State.String(), "CONTAINER_")
		table = append(table, []string{short(c.Id), imageName(c.GetImage()), age(c.CreatedAt), title(state), c.GetMetadata().GetName(),
			fmt.Sprint(c.GetMetadata().GetAttempt()), short(c.PodSandboxId), c.Labels["io.kubernetes.pod.name"]})
	}
	return l.print(t.Out, kept, table)
}

func pods(ctx context.Context, t *tool, args []string) error {
	l, err := t.listing("pods", args)
	if err != nil {
		return err
	}
	all, err := t.runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	kept := &runtimeapi.ListPodSandboxResponse{}
	for _, p := range all {
		if strings.Contains(p.GetMetadata().GetName(), l.name) {
			kept.Items = append(kept.Items, p)
		}
	}
	sort.Slice(kept.Items, func(a, b int) bool { return kept.Items[a].CreatedAt > kept.Items[b].CreatedAt })
	table := [][]string{{"POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT"}}
	for _, p := range kept.Items {
		state := strings.TrimPrefix(p.State.String(), "SANDBOX_")
		table = append(table, []string{short(p.Id), age(p.CreatedAt), title(state), p.GetMetadata().GetName(),
			p.GetMetadata().GetNamespace(), fmt.Sprint(p.GetMetadata().GetAttempt())})
	}
	return l.print(t.Out, kept, table)
}

func images(ctx context.Context, t *tool, args []string) error {
	l, err := t.listing("images", args)
	if err != nil {
		return err
	}
	all, err := t.images.ListImages(ctx, nil)
	if err != nil {
		return err
	}
	table := [][]string{{"IMAGE ID", "TAGS", "SIZE", "PINNED"}}
	sort.Slice(all, func(a, b int) bool { return strings.Join(all[a].RepoTags, ",") < strings.Join(all[b].RepoTags, ",") })
	for _, i := range all {
		table = append(table, []string{short(strings.TrimPrefix(i.Id, "sha256:")), strings.Join(append(i.RepoTags, i.RepoDigests...), ","),
			fmt.Sprintf("%.1f MB", float64(i.GetSize())/1e6), fmt.Sprint(i.Pinned)})
	}
	return l.print(t.Out, &runtimeapi.ListImagesResponse{Images: all}, table)
}

// print shows the message as JSON, or the table, or its first column.
func (l listing) print(w io.Writer, message proto.Message, table [][]string) error {
	if l.output == "json" {
		return printJSON(w, message)
	}
	if l.quiet {
		for _, row := range table[1:] {
			fmt.Fprintln(w, row[0])
		}
		return nil
	}
	columns := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range table {
		fmt.Fprintln(columns, strings.Join(row, "\t"))
	}
	return columns.Flush()
}

func printJSON(w io.Writer, message proto.Message) error {
	data, err := protojson.MarshalOptions{Multiline: true, Indent: "  ", EmitUnpopulated: true}.Marshal(message)
	if err != nil {
		return fmt.Errorf("render answer: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", data)
	return err
}

func imageName(image *runtimeapi.ImageSpec) string {
	if name := image.GetUserSpecifiedImage(); name != "" {
		return name
	}
	return image.GetImage()
}

// short is an ID as crictl shows it; every command takes it back.
func short(id string) string { return id[:min(len(id), 13)] }

func title(word string) string {
	switch word {
	case "":
		return ""
	case "NOTREADY":
		return "NotReady"
	}
	return word[:1] + strings.ToLower(word[1:])
}

func age(nanoseconds int64) string {
	return time.Since(time.Unix(0, nanoseconds)).Truncate(time.Second).String() + " ago"
}
