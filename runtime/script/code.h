/* Whose code an address belongs to: LuaJIT's, what it has compiled, or anybody else's. */
#ifndef GW_SCRIPT_CODE_H
#define GW_SCRIPT_CODE_H

#include <stdint.h>

enum gw_code { GW_CODE_OTHER, GW_CODE_LUAJIT, GW_CODE_COMPILED };

/* Looks at what the process has loaded, once. What is loaded later counts as compiled. */
void gw_code_survey(void);
/* Safe in a signal handler. Before a survey, and where there was too much to note, all is other. */
enum gw_code gw_code_at(uintptr_t address);

#endif
