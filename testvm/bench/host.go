package bench

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// hostBusy is the processor time that the host has spent on anything since its
// start; zero where it does not tell.
func hostBusy() time.Duration {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	return parseBusy(string(stat))
}

// parseBusy reads the first line of /proc/stat (man 5 proc_stat): "cpu", then
// user, nice, system, idle, iowait, irq, softirq, ... in units of 10 ms.
func parseBusy(stat string) time.Duration {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
