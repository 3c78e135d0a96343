package child

// PID of the child's process.
func (c *Process) PID() int { return c.cmd.Process.Pid }
