"""Machines: devices, links, budgets; probes; device facts."""
