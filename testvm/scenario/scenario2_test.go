package scenario

import (
	"testing"

	"keelson/testvm/qemu"
)

// First boot, BIOS: Node Ready; and the power button ends the machine in order.
func TestScenario2FirstBootBIOS(t *testing.T) {
	needVM(t)
	m := newMachine(t, qemu.BIOS, nil)
	start(t, m)
	becomesReady(t, m)
	if err := m.Shutdown(within(t, shutdownLimit)); err != nil {
		t.Fatal(err)
	}
	inOrder(t, m, m.Mark())
}
