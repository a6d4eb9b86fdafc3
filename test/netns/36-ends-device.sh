#!/bin/bash
# 36. A device ends its open session, by FIN, by RST and by silence, in each state (see 35).
# transports: socket stack
WORLD=s36
. "$(dirname "$0")/ends.sh"
#   STATE       SIDE     HOW     DEVICE UPSTREAM HEARD      SECONDS WHY
row open        device   silence 'F|-'  'F'    'nothing'       12  'idle'
row open        device   fin     'F'    'R'    'alert fin'     6   'device closed the connection'
row open        device   rst     '-'    'R'    'nothing'       6   'device closed the connection'
row full        device   silence 'F|-'  'R'    'nothing'       12  'idle'
row full        device   fin     'FR?'  'R'    '(notify )?fin' 10  'idle'
row full        device   rst     '-'    'R'    'nothing'       6   'device closed the connection'
row half        device   silence 'F|-'  'FR?'  'nothing'       10  'half-closed and idle'
row half        device   fin     'F'    'FR?'  'notify fin'    8   'half-closed and idle'
row half        device   rst     '-'    'FR?'  'nothing'       6   'device closed the connection'
row notified    device   silence 'F|-'  'FR?'  'nothing'       10  'half-closed and idle'
row notified    device   fin     'F'    'FR?'  'notify fin'    8   'half-closed and idle'
row notified    device   rst     '-'    'FR?'  'nothing'       6   'device closed the connection'
row flooded     device   silence 'F|-'  'FR?'  'nothing'       10  'half-closed and idle'
row flooded     device   rst     '-'    'FR?'  'nothing'       6   'device closed the connection'
row other-half  device   silence 'F|-'  'F'    'notify nothing' 10  'half-closed and idle'
row other-half  device   fin     'F'    'R'    'notify fin'    6   'device closed the connection'
row other-half  device   rst     '-'    'R'    'nothing'       6   'device closed the connection'
row closing     device   silence 'F'    'F'    'nothing'       10  'idle'
row closing     device   fin     'F'    'F'    'notify fin'    8   'idle'
row closing     device   rst     'F'    'F'    'nothing'       8   'idle'
row drain       device   silence 'F|-'  'F'    'nothing'       10  'its listener was removed'
row drain       device   fin     'F'    'R'    'alert fin'     8   'device closed the connection'
row drain       device   rst     '-'    'R'    'nothing'       8   'device closed the connection'
# Where the network repeats every frame, the end is the same.
wire_put cam1 --repeat 100
row open        device   fin     'F'    'R'    'alert fin'     6   'device closed the connection'
row half        device   fin     'F'    'FR?'  'notify fin'    8   'half-closed and idle'
row other-half  device   fin     'F'    'R'    'notify fin'    6   'device closed the connection'
nothing_left
