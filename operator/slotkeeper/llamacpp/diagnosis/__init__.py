"""Why a replica does not run, or not on its accelerator: signs in logs, with meaning and remedy."""
