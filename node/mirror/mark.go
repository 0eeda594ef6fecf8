package mirror

import "keelson/node/nodeobject"

// Mark puts the label on a Node that shares images, and takes it off one that has stopped.
func Mark(marks *nodeobject.Marks, shares bool) {
	if !shares {
		marks.Without = append(marks.Without, Label)
		return
	}
	if marks.Labels == nil {
		marks.Labels = map[string]string{}
	}
	marks.Labels[Label] = "true"
}
