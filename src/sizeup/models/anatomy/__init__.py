"""From a configuration to blocks, one small readable file for each kind of architecture."""
